"""One training of the benchmark, as a process of its own; `training.py` starts it.

    python benchmarks/training_runs.py ours --model FOLDER --data FILE --count 512

The last line it prints is JSON: what the training took and the loss on held-out records. All are
measured by the same code, in float32, on the base with the adapter that the training saved.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

SEED = 7  # of the records
# The same for both: what a user of either would set for LoRA on a model this small.
LEARNING_RATE, BATCH, RANK, ALPHA = 2e-4, 8, 16, 32
PADDED = 16


def records(
    path: Path, count: int, held_out: int
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """`count` training records and `held_out` others, drawn by a fixed seed."""
    import random

    rows = json.loads(path.read_text("utf-8"))
    chosen = random.Random(SEED).sample(range(len(rows)), count + held_out)
    picked = [{"id": str(at), **rows[at]} for at in chosen]
    return picked[:count], picked[count:]


def ours(model_folder: Path, train: list[dict[str, str]], work: Path, seed: int) -> dict[str, Any]:
    """`selfinstruct`'s training with the recipe's defaults, and TRL's schedule."""
    import torch

    from selfinstruct.core.sections.student import StudentConfig
    from selfinstruct.steps.training.adapters import add_adapter
    from selfinstruct.steps.training.format import StudentFormat
    from selfinstruct.steps.training.loading import load_model, load_tokenizer
    from selfinstruct.steps.training.plan import Plan
    from selfinstruct.steps.training.runtime import prepare_process, quiet, use_all_cores
    from selfinstruct.steps.training.trainer import fit

    prepare_process()
    use_all_cores()
    config = StudentConfig(
        base=str(model_folder),
        epochs=1.0,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        scheduler="linear",  # TRL's, to compare losses at the same rate
        warmup_ratio=0.0,
        device="cpu",
    )
    settings = config.model_dump(
        include=set(Plan.__struct_fields__) - {"device", "micro_batch_size"}
    )
    plan = Plan(**settings, micro_batch_size=4, seed=seed, device="cpu")
    form = StudentFormat(load_tokenizer(model_folder, "base"), "base")
    examples = form.examples(train, 512).kept
    model = load_model(model_folder, "base", device="cpu", dtype=torch.float32)
    with quiet():
        clock, processor = time.perf_counter(), time.process_time()
        adapted = add_adapter(model, plan)
        adapted, _ = fit(adapted, form.tokenizer, examples, plan, work, "benchmark", lambda: 0.0)
        seconds, cpu_s = time.perf_counter() - clock, time.process_time() - processor
    adapted.save_pretrained(work / "adapter")
    return {"seconds": seconds, "cpu_s": cpu_s}


def trl(
    model_folder: Path, train: list[dict[str, str]], work: Path, seed: int, **options: Any
) -> dict[str, Any]:
    """What a user of TRL writes: SFTTrainer with its defaults, and LoRA on all linear layers.

    Its defaults compute in bfloat16 (`bf16`) and recompute activations.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from selfinstruct.steps.training.format import asked

    rows = [
        {
            "prompt": [{"role": "user", "content": asked(row)}],
            "completion": [{"role": "assistant", "content": row["output"]}],
        }
        for row in train
    ]
    trainer = SFTTrainer(
        model=str(model_folder),
        args=SFTConfig(
            output_dir=str(work),
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=BATCH,  # its default
            use_cpu=True,  # without it, its default of bfloat16 is an error
            report_to="none",
            seed=seed,
            **options,
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    clock, processor = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu_s = time.perf_counter() - clock, time.process_time() - processor
    trainer.save_model(str(work / "adapter"))
    return {"seconds": seconds, "cpu_s": cpu_s}


def trl_float32(
    model_folder: Path, train: list[dict[str, str]], work: Path, seed: int
) -> dict[str, Any]:
    """The same in float32, as a user does whom the error above told of `bf16=False`."""
    return trl(model_folder, train, work, seed, bf16=False)


def ours_float32(*given: Any) -> dict[str, Any]:
    """Ours as on a processor that has no bfloat16."""
    from selfinstruct.steps.training import runtime

    runtime.has_bfloat16 = lambda: False
    return ours(*given)


def ours_padded(*given: Any, training: Any = ours) -> dict[str, Any]:
    """Ours with micro-batches padded to a multiple of `PADDED` tokens."""
    import trl as library

    library.SFTConfig = functools.partial(library.SFTConfig, pad_to_multiple_of=PADDED)
    found: dict[str, Any] = training(*given)
    return found


WHATS = {
    "ours": ours,
    "ours-float32": ours_float32,
    "ours-padded": ours_padded,
    "ours-padded-float32": functools.partial(ours_padded, training=ours_float32),
    "trl": trl,
    "trl-float32": trl_float32,
}


def measured(
    model_folder: Path, adapter: Path, train: list[dict[str, str]], held_out: list[dict[str, str]]
) -> dict[str, float]:
    """Tokens trained on, and the loss of base and adapter on `held_out`, in float32."""
    import torch

    from selfinstruct.steps.training.adapters import load_adapter
    from selfinstruct.steps.training.format import StudentFormat
    from selfinstruct.steps.training.loading import load_model, load_tokenizer
    from selfinstruct.steps.training.measures import mean_loss

    form = StudentFormat(load_tokenizer(model_folder, "base"), "base")
    base = load_model(model_folder, "base", device="cpu", dtype=torch.float32)
    examples, tested = form.examples(train, 512).kept, form.examples(held_out, 512).kept
    pad = form.tokenizer.pad_token_id
    return {
        "tokens": sum(example.length for example in examples),
        "answer_tokens": sum(example.learned for example in examples),
        "held_out_loss": mean_loss(load_adapter(base, adapter).eval(), tested, pad_id=pad),
    }


def main() -> None:
    """Train, measure, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=WHATS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--held-out", type=int, required=True)
    parser.add_argument("--seed", type=int, default=SEED, help="of the order and the adapter")
    given = parser.parse_args()
    train, held_out = records(given.data, given.count, given.held_out)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        done = WHATS[given.what](given.model, train, work, given.seed)
        done |= measured(given.model, work / "adapter", train, held_out)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
