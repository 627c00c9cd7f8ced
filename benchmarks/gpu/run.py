"""Training on a GPU beside plain TRL, with random weights of real shapes at 2,048 tokens.

    python -m benchmarks.gpu.run                    # what is not in results/gpu.json yet
    python -m benchmarks.gpu.run --budget 600       # as many cases as fit into ten minutes
    python -m benchmarks.gpu.run --cases full-7b-ours,full-7b-trl --again
    python -m benchmarks.gpu.run --check            # measures nothing: exit 1 naming missed targets
    python -m benchmarks.gpu.run --dry-run          # every case on a processor, tiny, thrown away

Each case is a process of its own with a time limit, and is written down as soon as it is done. What
a case needs and the machine lacks (FlashAttention, Liger, bitsandbytes) is noted as skipped. No
network is used. `cases.py` has the cases and their order, `trainings.py` is what a process does.

Targets: half of the GPU's peak for full fine-tuning of the 7B shape, and nowhere fewer tokens a
second than TRL.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import CASES
from benchmarks.harness import HERE, ChildFailed, Target, machine, run, table

RESULTS = HERE / "results" / "gpu.json"
MFU = 0.50
# Less than this is not worth beginning a case with.
LEAST_SECONDS = 45


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="names, of cases.py")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--dry-run", action="store_true", help="tiny and on a processor")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    names = given.cases.split(",")
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if given.dry_run:
        return dry_run(names)
    if given.check:
        return check(read(given.results))
    end = time.monotonic() + given.budget
    left = names if given.again else [name for name in names if not is_done(given.results, name)]
    measure(left, given.results, end)
    show(read(given.results))
    return 0


def measure(names: Sequence[str], results: Path, end: float) -> None:
    """Measure each case that there is time for, and write it down."""
    for at, name in enumerate(names):
        seconds = end - time.monotonic()
        if seconds < LEAST_SECONDS:
            print(f"no time left for {', '.join(names[at:])}: give the command again")
            return
        limit = min(CASES[name].limit_s, seconds)
        try:
            found = run(child(name), env=importable(), limit_s=limit).said[name]
        except ChildFailed as error:
            found = {"error": str(error)[-1500:], "limit_s": round(limit)}
        found["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
        write(results, name, found)
        print(f"{name}: {in_short(found)}", flush=True)


def child(*names: str, dry: bool = False) -> list[str]:
    """The command that measures these cases."""
    command = [sys.executable, "-m", "benchmarks.gpu.trainings", *names]
    return [*command, "--dry-run"] if dry else command


def importable() -> dict[str, str]:
    """An environment that finds this folder and the tests' tokenizer, after what is found now."""
    return {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE.parent)])}


def dry_run(names: Sequence[str]) -> int:
    """Every case in one process, tiny; 1 where one fails. Nothing is written."""
    # Compiling for a processor takes minutes and says nothing of a GPU.
    env = importable() | {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    said = run(child(*names, dry=True), env=env).said
    with tempfile.TemporaryDirectory() as folder:
        for name, found in said.items():
            write(Path(folder) / "gpu.json", name, found)
            print(f"{name}: {in_short(found)}")
        show(read(Path(folder) / "gpu.json"))
    return int(any("error" in found for found in said.values()))


def read(results: Path) -> dict[str, dict[str, Any]]:
    """What was found so far, by case."""
    if not results.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(results.read_text("utf-8"))["cases"]
    return found


def is_done(results: Path, name: str) -> bool:
    """Whether a case was measured; what failed or was skipped is tried again."""
    return "tokens_per_s" in read(results).get(name, {})


def write(results: Path, name: str, found: dict[str, Any]) -> None:
    """Write one case beside the others, whole or not at all."""
    cases = read(results) | {name: found}
    ordered = {key: cases[key] for key in CASES if key in cases}
    results.parent.mkdir(parents=True, exist_ok=True)
    temporary = results.with_suffix(".tmp")
    text = json.dumps({"machine": machine(), "cases": ordered}, indent=2)
    temporary.write_text(text + "\n", "utf-8")
    temporary.replace(results)


def in_short(found: dict[str, Any]) -> str:
    """One line about a case."""
    if "tokens_per_s" not in found:
        return next((f"{key}: {found[key]}" for key in ("skipped", "error") if key in found), "?")
    share = "" if found.get("mfu") is None else f", MFU {found['mfu']:.1%}"
    return f"{found['tokens_per_s']:,.0f} tokens/s{share}, {found['peak_gib']:.1f} GiB"


def show(cases: dict[str, dict[str, Any]]) -> None:
    """Print what was measured as a table."""
    rows = [
        {
            "case": name,
            "tokens/s": round(found["tokens_per_s"]),
            "MFU": "" if found.get("mfu") is None else f"{found['mfu']:.1%}",
            "peak GiB": round(found["peak_gib"], 1),
            "micro-batch": found.get("micro_batch_size", ""),
            "with": found.get("with", ""),
        }
        for name, found in cases.items()
        if "tokens_per_s" in found
    ]
    table(next((one["device"] for one in cases.values() if "device" in one), "nothing"), rows)


def targets(cases: dict[str, dict[str, Any]]) -> list[Target]:
    """The targets of what was measured."""
    best = max(
        (
            found["mfu"]
            for name, found in cases.items()
            if CASES[name].part == "full-7b" and CASES[name].what == "ours" and found.get("mfu")
        ),
        default=0.0,
    )
    found = [Target("full-7b", "MFU of full fine-tuning, 7B", best, MFU, "", at_least=True)]
    for part in dict.fromkeys(case.part for case in CASES.values() if case.what == "trl"):
        mine = cases.get(f"{part}-ours", {}).get("tokens_per_s", 0.0)
        trls = [name for name in CASES if name.startswith(f"{part}-trl")]
        theirs = max(cases.get(name, {}).get("tokens_per_s", float("inf")) for name in trls)
        ratio = mine / theirs
        name = f"{part}: tokens/s, times TRL's"
        found.append(Target(part, name, ratio, 1.0, "x", at_least=True))
    return found


def check(cases: dict[str, dict[str, Any]]) -> int:
    """Print the targets; 1 where one is missed, or was not measured."""
    found = targets(cases)
    for target in found:
        print(target)
    return int(not all(target.met for target in found))


if __name__ == "__main__":
    sys.exit(main())
