"""Twenty kill -9s during a training, against the same training never stopped.

    python -m benchmarks.kills [--kills 20] [--processes 1]

A tiny student with dropout, a checkpoint every 4 steps and a measurement every 5 is killed at
random moments, also while it writes; the same command is given again each time. Prints what differs
in the end, and fails if anything does: losses, held-out losses, each tensor of the adapter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from tests.kills import differences, finish, kill_often, make
from tests.tiny_student import make_base


def main() -> int:
    """1 where the two trainings differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_base(folder / "base")
        whole, killed = make(folder / "whole", base), make(folder / "killed", base)
        finish(whole, given.processes)
        done = kill_often(killed, given.kills, given.seed, given.processes)
        finish(killed, given.processes)
        found = differences(whole, killed)
    print(f"kills {done}, processes {given.processes}, differences: {', '.join(found) or 'none'}")
    return 1 if found or done < given.kills else 0


if __name__ == "__main__":
    sys.exit(main())
