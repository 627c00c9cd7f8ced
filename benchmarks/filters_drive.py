"""Child processes of `filters.py`: each measures one thing and prints what it cost as JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import filters_meaning
from texts import alpaca

from selfinstruct.steps.filters.novelty import novel_mask

Said = dict[str, object]


def novelty(given: argparse.Namespace) -> Said:
    """Alpaca's instructions from text to decisions; the first pass warms up."""
    texts = alpaca(given.count)
    instructions = [row["instruction"] for row in texts.rows]
    begin = time.process_time()
    novel_mask(instructions[:5000], 0.7, "alpaca")
    warm_up = time.process_time() - begin
    begin = time.process_time()
    decisions = novel_mask(instructions, 0.7, "alpaca")
    cpu = time.process_time() - begin
    return {
        "rows": len(instructions),
        "real": texts.real,
        "warm_up_cpu_s": warm_up,
        "cpu_s": cpu,
        "dropped": int((~decisions.kept).sum()),
    }


JOBS: dict[str, Callable[[argparse.Namespace], Said]] = {
    "novelty": novelty,
    "paraphrases": filters_meaning.paraphrases,
    "semantic": filters_meaning.semantic,
    "roots": filters_meaning.roots,
}


def main() -> None:
    """Do what the command line says and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(JOBS[given.job](given)))


if __name__ == "__main__":
    main()
