"""A tiny random base and a run folder around it, for the tests of training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import SeedTask
from selfinstruct.engine.folder import RunFolder
from selfinstruct.steps.tables import seed_row, write_parquet

# A model this small gains nothing from threads, and waits for them where cores are busy. PyTorch
# reads it when it is imported, which tests do after this module.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RECORDS = [
    ("Name a colour of the sky", "", "Blue, and red at dusk."),
    ("Add the two numbers", "two and three", "Five."),
    ("Say what a harbour is for", "", "Ships rest there."),
    ("Turn the word around", "stone", "enots"),
    ("Name an animal that swims", "", "An otter."),
    ("Give the plural", "goose", "Geese."),
    ("Say what bread is made of", "", "Flour, water and salt."),
    ("Name the opposite", "cold", "Warm."),
]
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def rows(records: Sequence[tuple[str, str, str]] = RECORDS) -> list[dict[str, Any]]:
    """Records as rows of the dataset's default config."""
    tasks = [
        SeedTask(id=f"r{number}", instruction=instruction, input=given, output=output)
        for number, (instruction, given, output) in enumerate(records)
    ]
    return [seed_row(task) for task in tasks]


def make_tokenizer(*, chat: bool, eos: str | None = "") -> Any:
    """A byte-level BPE tokenizer of about 400 tokens.

    With `chat` it has ChatML's template and ends turns with <|im_end|>; without, it puts <s> before
    text and ends with </s>, as Llama's do. `eos` overrides the end token; None leaves it out.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(record) for record in RECORDS], trainer)
    if not chat:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    ends = ("<|im_end|>" if chat else "</s>") if eos == "" else eos
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>" if chat else "<s>",
        eos_token=ends,
        model_max_length=256,
    )
    if chat:
        tokenizer.chat_template = CHATML
    return tokenizer


def make_base(
    folder: Path,
    *,
    chat: bool = True,
    eos: str | None = "",
    vocabulary: int | None = None,
    tied: bool = False,
) -> Path:
    """A random Llama of two layers with its tokenizer, saved in `folder`; the same every time.

    `tied`: its head has the weights of its embeddings.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(chat=chat, eos=eos)
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=tied,
        initializer_range=0.5,  # an adapter leaves the head as it is: it must tell tokens apart
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_run(
    folder: Path,
    base: Path | str,
    *,
    train: Sequence[dict[str, Any]] | None = None,
    test: Sequence[dict[str, Any]] | None = None,
    student: dict[str, Any] | None = None,
    **recipe: Any,
) -> RunFolder:
    """A run folder with a dataset of `train` and `test` rows and a recipe for `base`."""
    settings: dict[str, Any] = {
        "base": str(base),
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_length": 96,
        "learning_rate": 0.01,
        "device": "cpu",
    }
    whole = {
        "name": "tiny",
        "seeds": "seeds/general.jsonl",
        "teacher": {"kind": "scripted", "model": "replies.jsonl"},
        "student": settings | (student or {}),
        "evaluate": {"samples": 2, "max_new_tokens": 24},
    }
    run = RunFolder(folder)
    run.save_recipe(Recipe.model_validate(whole | recipe))
    for split, chosen in (("train", rows() if train is None else train), ("test", test or [])):
        if chosen:
            path = run.dataset / "data" / f"{split}-00000-of-00001.parquet"
            write_parquet(path, "default", chosen)
    return run
