"""Tiny random models of every family, with tokenizers and chat templates of their shapes.

The templates follow each family's published one, without tools and dates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.tiny_student import CHATML, RECORDS

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}"
    "{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '')"
    " + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('Only user and assistant roles') }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# Only the last answer keeps its reasoning; an empty one stands where there is none.
QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


class Family(msgspec.Struct, frozen=True):
    """How a family's tiny model and tokenizer are made.

    `tokens` are the special ones, the first of them `bos`, `eos` and `pad` where they are named.
    `kind` is the tokenizer's: byte-level BPE, SentencePiece's BPE, or T5's unigrams.
    """

    config: str
    tokens: list[str]
    bos: str | None
    eos: str
    pad: str | None = None
    template: str | None = None
    kind: str = "bytes"
    settings: dict[str, Any] = {}


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": False}
END = "<|endoftext|>"
IM = ["<|im_start|>", "<|im_end|>"]
FAMILIES: dict[str, Family] = {
    "llama-2": Family(
        "LlamaConfig", ["<unk>", "<s>", "</s>"], "<s>", "</s>", None, LLAMA2, "pieces", GROUPED
    ),
    "llama-3": Family(
        "LlamaConfig",
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        "<|begin_of_text|>",
        "<|eot_id|>",
        None,
        LLAMA3,
        settings=GROUPED,
    ),
    "mistral": Family(
        "MistralConfig", ["<unk>", "<s>", "</s>"], "<s>", "</s>", None, MISTRAL, "pieces", GROUPED
    ),
    "smollm2": Family(
        "LlamaConfig", [END, *IM], IM[0], IM[1], IM[1], CHATML, settings={**GROUPED, **SMALL}
    ),
    "qwen-2": Family("Qwen2Config", [END, *IM], None, IM[1], END, CHATML, settings=GROUPED),
    "qwen-3": Family(
        "Qwen3Config", [END, *IM], None, IM[1], END, QWEN3, settings={**GROUPED, "head_dim": 16}
    ),
    "gemma-2": Family(
        "Gemma2Config",
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        "<bos>",
        "<eos>",
        "<pad>",
        GEMMA,
        "pieces",
        {**SMALL, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16},
    ),
    "pythia": Family("GPTNeoXConfig", [END, "<|padding|>"], END, END, settings=SMALL),
    "falcon": Family("FalconConfig", [END], END, END, settings=SMALL),
    "gpt-j": Family(
        "GPTJConfig",
        [END],
        END,
        END,
        settings={"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "rotary_dim": 4},
    ),
    "flan-t5": Family(
        "T5Config",
        ["<pad>", "</s>", "<unk>"],
        None,
        "</s>",
        "<pad>",
        None,
        "unigrams",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "decoder_start_token_id": 0,
            "dropout_rate": 0.0,
        },
    ),
}
CAUSAL = [name for name in FAMILIES if name != "flan-t5"]


def family_tokenizer(name: str) -> Any:
    """A tokenizer of some 300 tokens, of the family's kind, with its template if it has one."""
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    kinds: dict[str, Callable[[Family], Any]] = {
        "bytes": _bytes,
        "pieces": _pieces,
        "unigrams": _unigrams,
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=kinds[family.kind](family),
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        additional_special_tokens=family.tokens,
        model_max_length=512,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def _text() -> list[str]:
    return [" ".join(record) for record in RECORDS]


def _bytes(family: Family) -> Any:
    """Byte-level BPE, as of Llama 3, Qwen, Pythia, Falcon and GPT-J."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=family.tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_text(), trainer)
    if family.bos == "<|begin_of_text|>":
        backend.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, 0)]
        )
    return backend


def _pieces(family: Family) -> Any:
    """SentencePiece's BPE with a marked space before the text, as of Llama 2, Mistral and Gemma."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    gemma = "<start_of_turn>" in family.tokens
    backend = Tokenizer(models.BPE(unk_token=None if gemma else "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="never" if gemma else "first", split=False
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="never" if gemma else "first")
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=family.tokens,
        initial_alphabet=[chr(code) for code in range(33, 127)] + ["\n", "▁"],
        show_progress=False,
    )
    backend.train_from_iterator(_text(), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{family.bos} $A", special_tokens=[(family.bos, family.tokens.index(family.bos))]
    )
    return backend


def _unigrams(family: Family) -> Any:
    """T5's: unigrams, runs of space as one, and an end token after any text."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    words = sorted({f"▁{word}" for text in _text() for word in text.split()})
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    # Not trained: its trainer gives other pieces each time.
    vocabulary = [(token, 0.0) for token in family.tokens]
    vocabulary += [(word, -4.0) for word in words] + [(one, -9.0) for one in characters]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=family.tokens.index("<unk>")))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", family.tokens.index("</s>"))]
    )
    return backend


def make_family(name: str, folder: Path) -> Path:
    """A random model of the family with its tokenizer, saved in `folder`; the same every time."""
    import torch
    import transformers

    family, tokenizer = FAMILIES[name], family_tokenizer(name)
    settings = dict(family.settings)
    if family.config != "T5Config":
        # An adapter leaves the head as it is: it must tell tokens apart.
        settings["initializer_range"] = 0.3
    config = getattr(transformers, family.config)(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    auto = (
        transformers.AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
