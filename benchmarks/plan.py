"""A training's plan against reality: memory and time, each case in a process of its own.

    python -m benchmarks.plan                     # all cases, into results/plan.json
    python -m benchmarks.plan --cases tiny-full --check   # this one again, into the same file

The plan is the one `train-student --plan` prints, made before a weight is loaded; what was taken is
what training.json says. Targets: memory within 20%, and the time that is foreseen after 20 steps
within 30%. Time is that of the clock, so the machine should be free.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Findings, machine, run, table, versions, write
from benchmarks.texts import alpaca

RESULTS = Path(__file__).parent / "results" / "plan.json"
REAL = "smollm2-135m-instruct"
MEMORY, TIME = 0.20, 0.30
PACKAGES = ("selfinstruct", "torch", "transformers", "trl", "peft")
# Base, settings; `shape` is of a random model with the real one's tokenizer.
CASES: dict[str, dict[str, Any]] = {
    "smollm2-lora": {"method": "lora", "batch_size": 2, "micro_batch_size": 2, "max_length": 256},
    "smollm2-full": {"method": "full", "batch_size": 1, "micro_batch_size": 1, "max_length": 128},
    "smollm2-auto": {"method": "lora", "batch_size": 4, "max_length": 96},
    "tiny-full": {
        "method": "full", "batch_size": 4, "micro_batch_size": 4, "max_length": 192,
        "shape": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
                  "num_attention_heads": 4, "num_key_value_heads": 2},
    },
    "tiny-lora-long": {
        "method": "lora", "batch_size": 2, "micro_batch_size": 2, "max_length": 384,
        "shape": {"hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 4,
                  "num_attention_heads": 5, "num_key_value_heads": 5},
    },
}  # fmt: skip


def main() -> int:
    """1 with --check where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given.case)))
        return 0
    found = Findings()
    for name in given.cases.split(","):
        found.begin(name)
        command = [sys.executable, "-m", "benchmarks.plan", "--case", name]
        one = run(command, limit_s=900).said
        found.note(**one)
        found.target("memory, off the plan by", abs(one["memory_error"]), MEMORY, "of it")
        found.target("time, off what was foreseen by", abs(one["time_error"]), TIME, "of it")
        print(name, {key: round(value, 3) for key, value in one.items()}, flush=True)
    table("Plan and training", [{"case": name} | part for name, part in found.parts.items()])
    write(RESULTS, found, {"machine": machine(), "versions": versions(*PACKAGES)})
    print()
    for target in found.targets:
        print(target)
    return int(given.check and not all(target.met for target in found.targets))


def measure(name: str) -> dict[str, float]:
    """One case: plan it, train it, compare."""
    from selfinstruct.stages.train import plan_student, train_student

    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), dict(CASES[name]))
        plan = plan_student(made)
        summary = train_student(made)
    actual = summary.actual
    assert actual.peak_bytes is not None
    assert actual.corrected_seconds is not None
    return {
        "planned_gib": plan.need / 2**30,
        "taken_gib": actual.peak_bytes / 2**30,
        "memory_error": plan.need / actual.peak_bytes - 1,
        "planned_seconds": plan.seconds or 0.0,
        "corrected_seconds": actual.corrected_seconds,
        "taken_seconds": actual.seconds,
        "time_error": actual.corrected_seconds / actual.seconds - 1,
        "steps": summary.steps,
        "tokens": summary.tokens,
        "padded_tokens": summary.padded_tokens,
    }


def make(folder: Path, settings: dict[str, Any]) -> Any:
    """A run folder on Alpaca's records."""
    from selfinstruct.core.recipe import Recipe
    from selfinstruct.core.types import SeedTask
    from selfinstruct.engine.folder import RunFolder
    from selfinstruct.steps.tables import seed_row, write_parquet

    shape = settings.pop("shape", None)
    base = REAL if shape is None else str(random_model(folder / "base", shape))
    made = RunFolder(folder / "run")
    recipe = {
        "name": "plan",
        "seeds": "seeds/general.jsonl",
        "teacher": {"kind": "scripted", "model": "replies.jsonl"},
        "student": {
            "base": base, "device": "cpu", "max_steps": 30, "merge": False, "save_steps": 1000,
            **settings,
        },
    }  # fmt: skip
    made.save_recipe(Recipe.model_validate(recipe))
    rows = [row for row in alpaca(2_000).rows if row["output"].strip()][:320]
    tasks = [SeedTask(id=f"r{at}", **{k: row[k] for k in ("instruction", "input", "output")})
             for at, row in enumerate(rows)]  # fmt: skip
    path = made.dataset / "data" / "train-00000-of-00001.parquet"
    write_parquet(path, "default", [seed_row(task) for task in tasks])
    return made


def random_model(folder: Path, shape: dict[str, int]) -> Path:
    """A random Llama of this shape with the real model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from selfinstruct.steps.privacy import Policy
    from selfinstruct.steps.training.base import find_base
    from selfinstruct.steps.training.loading import load_tokenizer

    tokenizer = load_tokenizer(find_base(REAL, Policy(local=False)).folder, REAL)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **shape,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
