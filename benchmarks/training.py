"""Training beside plain TRL: LoRA of SmolLM2-135M on 512 records of Alpaca, on a processor.

    python benchmarks/training.py --data alpaca_data.json [--quick] [--check]

Both train the same records once, from the same weights, with the same learning rate, batch and
adapter, in float32; ours sets `sparse_head`, and everything else is each side's default. Runs
alternate, each in a process of its own, and both measure the held-out loss by the same code.
Tokens are counted without padding.
CPU time is user and system time of all threads during the training; threads of both sleep while
they wait (OMP_WAIT_POLICY), since spinning ones would be counted as work. ``--quick`` takes 64
records once and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import HERE, Findings, machine, medians, run, table, versions, write

from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.base import find_base

RESULTS = HERE / "results" / "training.json"
MODEL = "smollm2-135m-instruct"
PACKAGES = ("selfinstruct", "torch", "transformers", "trl", "peft")
WHATS = ("ours", "trl")
TARGET = 1.5


def training_of(what: str, model: Path, data: Path, count: int, held_out: int) -> dict[str, float]:
    """One training: tokens a second, tokens a second of CPU, the held-out loss, peak memory."""
    command = [sys.executable, str(HERE / "training_runs.py"), what, "--model", str(model)]
    command += ["--data", str(data), "--count", str(count), "--held-out", str(held_out)]
    done = run(command, env={"OMP_WAIT_POLICY": "passive"}, limit_s=7200)
    said = done.said
    return {
        "tokens": said["tokens"],
        "seconds": said["seconds"],
        "cpu_s": said["cpu_s"],
        "tokens_per_s": said["tokens"] / said["seconds"],
        "tokens_per_cpu_s": said["tokens"] / said["cpu_s"],
        "held_out_loss": said["held_out_loss"],
        "peak_mb": done.rss_mb,
    }


def compare(found: Findings, data: Path, count: int, held_out: int, repeats: int) -> None:
    """Both trainings in turn, and how they compare."""
    found.begin("lora")
    model = find_base(MODEL, Policy()).folder
    runs: dict[str, list[dict[str, float]]] = {what: [] for what in WHATS}
    for _ in range(repeats):
        for what in WHATS:
            runs[what].append(training_of(what, model, data, count, held_out))
    rows = {what: medians(one) for what, one in runs.items()}
    table(
        f"LoRA of {MODEL}, {count} records of Alpaca, one pass",
        [{"training": what} | row for what, row in rows.items()],
    )
    found.note(records=count, held_out=held_out, runs=repeats, **rows)
    mine, theirs = rows["ours"], rows["trl"]
    speed = mine["tokens_per_s"] / theirs["tokens_per_s"]
    processor = mine["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"]
    loss = mine["held_out_loss"] / theirs["held_out_loss"]
    found.target("tokens/s, times plain TRL's", speed, TARGET, "x", at_least=True)
    found.target("tokens per CPU second, times TRL's", processor, TARGET, "x", at_least=True)
    found.target("held-out loss, share of plain TRL's", loss, 1.0, "")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Alpaca's alpaca_data.json")
    parser.add_argument("--quick", action="store_true", help="64 records, nothing is written")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    given = parser.parse_args(argv)
    found = Findings()
    if given.quick:
        compare(found, given.data, count=64, held_out=16, repeats=1)
    else:
        compare(found, given.data, count=512, held_out=64, repeats=3)
        about = {"machine": machine(), "versions": versions(*PACKAGES)}
        write(RESULTS, found, about)
    print()
    for target in found.targets:
        print(target)
    return int(given.check and not all(target.met for target in found.targets))


if __name__ == "__main__":
    sys.exit(main())
