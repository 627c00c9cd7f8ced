"""Training beside plain TRL: LoRA of SmolLM2-135M on 512 records of Alpaca, on a processor.

    python benchmarks/training.py --data alpaca_data.json [--quick] [--runs 3] [--check]
    python benchmarks/training.py --data alpaca_data.json --parts float32
    python benchmarks/training.py --data alpaca_data.json --parts order
    python benchmarks/training.py --data alpaca_data.json --parts padding --records 96

Both train the same records once, from the same weights, with the same learning rate, its schedule,
batch and adapter; everything else is each side's default. TRL's are bfloat16 by autocast, batches
of 8 at random, recomputed activations and the loss of all positions; ours are bfloat16 where the
processor has it, micro-batches of 4 of similar length, kept activations and the loss on answers
alone. The part `float32` has TRL in float32 beside both, on the records of ``--quick``. The part
`order` trains nothing: it counts how much steps differ in answer tokens, whose mean is the loss,
and the padding of micro-batches of 4, beside a random order. The part `padding` is to be asked for
and writes nothing: ours beside ours with micro-batches padded to a multiple of 16 tokens, which are
fewer lengths for the processor's kernels, in bfloat16 and in float32.

Runs alternate, each in a process of its own; each pair has another seed, of order and adapter. All
adapters are measured by the same code, in float32. Tokens are counted without padding. CPU time is
user and system time of all threads during the training; threads of both sleep while they wait
(OMP_WAIT_POLICY), since spinning ones would be counted as work. ``--quick`` takes 64 records once
and writes nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
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
QUICK, QUICK_HELD_OUT = 64, 16
PARTS = ("lora", "float32", "order")
PADDED = ("ours", "ours-padded", "ours-float32", "ours-padded-float32")
TARGET = 1.5


def training_of(
    what: str, model: Path, data: Path, count: int, held_out: int, seed: int
) -> dict[str, float]:
    """One training: tokens a second, tokens a second of CPU, the held-out loss, peak memory."""
    command = [sys.executable, str(HERE / "training_runs.py"), what, "--model", str(model)]
    command += ["--data", str(data), "--count", str(count), "--held-out", str(held_out)]
    command += ["--seed", str(seed)]
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
    runs = alternate(WHATS, data, count, held_out, repeats)
    rows = {what: medians(one) for what, one in runs.items()}
    table(
        f"LoRA of {MODEL}, {count} records of Alpaca, one pass",
        [{"training": what} | row for what, row in rows.items()],
    )
    losses = {what: [run["held_out_loss"] for run in some] for what, some in runs.items()}
    found.note(records=count, held_out=held_out, runs=repeats, losses=losses, **rows)
    mine, theirs = rows["ours"], rows["trl"]
    speed = mine["tokens_per_s"] / theirs["tokens_per_s"]
    processor = mine["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"]
    loss = mine["held_out_loss"] / theirs["held_out_loss"]
    found.target("tokens/s, times plain TRL's", speed, TARGET, "x", at_least=True)
    found.target("tokens per CPU second, times TRL's", processor, TARGET, "x", at_least=True)
    found.target("held-out loss, share of plain TRL's", loss, 1.0, "")


def alternate(
    whats: Sequence[str], data: Path, count: int, held_out: int, repeats: int
) -> dict[str, list[dict[str, float]]]:
    """What each training took, run by run."""
    model = find_base(MODEL, Policy()).folder
    runs: dict[str, list[dict[str, float]]] = {what: [] for what in whats}
    for seed in range(1, repeats + 1):
        for what in whats:
            runs[what].append(training_of(what, model, data, count, held_out, seed))
            print(what, {name: round(value, 4) for name, value in runs[what][-1].items()})
    return runs


def beside(found: Findings, data: Path) -> None:
    """TRL in float32, on fewer records, and no target."""
    found.begin("float32")
    runs = alternate((*WHATS, "trl-float32"), data, QUICK, QUICK_HELD_OUT, 1)
    rows = {what: medians(one) for what, one in runs.items()}
    table(
        f"LoRA of {MODEL}, {QUICK} records of Alpaca, one pass",
        [{"training": what} | row for what, row in rows.items()],
    )
    found.note(records=QUICK, held_out=QUICK_HELD_OUT, runs=1, **rows)


def padded(data: Path, count: int, repeats: int) -> None:
    """What padding to fewer lengths saves or costs."""
    runs = alternate(PADDED, data, count, QUICK_HELD_OUT, repeats)
    table(
        f"LoRA of {MODEL}, {count} records of Alpaca, one pass",
        [{"training": what} | medians(one) for what, one in runs.items()],
    )


def orders(found: Findings, data: Path, count: int) -> None:
    """The spread of steps' answer tokens (standard deviation by mean), and tokens with padding."""
    from training_runs import records

    from selfinstruct.steps.planning.batches import micro_batches
    from selfinstruct.steps.training.format import StudentFormat
    from selfinstruct.steps.training.loading import load_tokenizer
    from selfinstruct.steps.training.order import training_order

    found.begin("order")
    form = StudentFormat(load_tokenizer(find_base(MODEL, Policy()).folder, MODEL), MODEL)
    examples = form.examples(records(data, count, 0)[0], 512).kept
    lengths = [example.length for example in examples]

    def measured(order: Sequence[int], batch: int) -> tuple[float, float]:
        steps = [order[at : at + batch] for at in range(0, len(order), batch)]
        answers = [sum(examples[at].learned for at in step) for step in steps]
        padded = micro_batches([lengths[at] for at in order], 4)
        return (
            statistics.pstdev(answers) / statistics.mean(answers),
            sum(one.positions for one in padded) / sum(lengths),
        )

    rows = []
    for batch in (4, 8, 16, 32):
        ours, chance = [], []
        for seed in range(10):
            shuffled = random.Random(seed).sample(range(len(lengths)), len(lengths))
            order = training_order(lengths, batch_size=batch, epochs=1, seed=seed)
            ours.append(measured(order, batch))
            chance.append(measured(shuffled, batch))
        row: dict[str, float] = {"batch": batch}
        for what, some in (("ours", ours), ("random", chance)):
            spreads, padded = zip(*some, strict=True)
            row[f"{what}, spread"] = statistics.mean(spreads)
            row[f"{what}, padded"] = statistics.mean(padded)
        rows.append(row)
    table(f"Steps of {len(lengths)} records of Alpaca, mean of 10 orders", rows)
    found.note(records=len(lengths), orders=rows)
    worst = max(row["ours, spread"] / row["random, spread"] for row in rows)
    found.target("spread of a step's tokens, times a random order's", worst, 1.25, "x")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Alpaca's alpaca_data.json")
    parser.add_argument("--quick", action="store_true", help="64 records, nothing is written")
    parser.add_argument(
        "--parts", nargs="+", choices=(*PARTS, "padding"), default=PARTS, help="all but padding"
    )
    parser.add_argument("--records", type=int, default=512, help="that are trained on")
    parser.add_argument("--runs", type=int, default=3, help="of each training")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    given = parser.parse_args(argv)
    found = Findings()
    if "padding" in given.parts and (given.quick or len(given.parts) > 1):
        parser.error("padding is measured by itself, and takes --records and --runs")
    if "padding" in given.parts:
        padded(given.data, given.records, given.runs)
    elif given.quick:
        compare(found, given.data, QUICK, QUICK_HELD_OUT, repeats=1)
    else:
        if "lora" in given.parts:
            compare(found, given.data, given.records, held_out=64, repeats=given.runs)
        if "order" in given.parts:
            orders(found, given.data, given.records)
        if "float32" in given.parts:
            beside(found, given.data)
        about = {"machine": machine(), "versions": versions(*PACKAGES)}
        write(RESULTS, found, about)
    print()
    for target in found.targets:
        print(target)
    return int(given.check and not all(target.met for target in found.targets))


if __name__ == "__main__":
    sys.exit(main())
