"""A process of its own for tests of `--engine daft`, as Daft's runner is chosen once a process.

python -m tests.scale_child DATA OUT    filters, and prints the funnel
"""

from __future__ import annotations

import sys

import msgspec

from selfinstruct.stages.filter_scale import filter_at_scale
from selfinstruct.steps.scale import shards


def main() -> None:
    """Filter, and print what came of it."""
    data, out = sys.argv[1:]
    shards.SHARD_ROWS = 100  # several shards of a small file
    funnel = filter_at_scale(data, out)
    sys.stdout.write(msgspec.json.encode(funnel).decode() + "\n")


if __name__ == "__main__":
    main()
