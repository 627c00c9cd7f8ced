"""What every task of a job knows: where the work is kept, and how it is cut.

A row's number is its file's times 2^36 plus its place in the file, so that numbers grow in the
order of the rows, whoever reads them. A distinct text is a node of the graph of near-duplicates.
A node's number is the number of the first row with that text, times the number of parts, plus the
part that the text lies in: it grows with that row's number, and tells where the text is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selfinstruct.steps.scale.shards import Shard

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PART_ROWS = 125_000  # about
PART_BYTES = 256 << 20  # of Parquet, before compression
# Each task of a stage writes a batch for each part. More rows than 32 million make larger parts.
MOST_PARTS = 256


class Plan(NamedTuple):
    """A job.

    Args:
        work: a folder that every worker sees.
        parts: into how many the texts, and all that is found of them, are cut.
        groups: the shards that one task reads, and writes, one after the other.
        names: the files' names in messages.
        threshold: Jaccard similarity from which on a pair is near.
        ngram: words in an n-gram.
        columns: the user's names of columns; see `rows.task.Columns`.
        out: the folder that the kept and the rejected rows are written to.
    """

    work: Path
    parts: int
    groups: tuple[tuple[Shard, ...], ...]
    names: tuple[str, ...]
    threshold: float
    ngram: int
    columns: dict[str, str] | None
    out: Path

    def file(self, stage: str, number: int) -> Path:
        """Where a task of a stage writes what it finds."""
        return self.work / stage / f"{number:05d}.arrow"

    def files(self, stage: str) -> list[Path]:
        """What all tasks of a stage have written; none where the stage was left out."""
        return sorted((self.work / stage).glob("*.arrow"))

    def group_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number of the group that each row is in."""
        import numpy as np

        firsts = np.array([group[0].first for group in self.groups], np.int64)
        return np.searchsorted(firsts, rows, side="right") - 1


def grouped(shards: Sequence[Shard]) -> tuple[tuple[Shard, ...], ...]:
    """Shards in at most `MOST_PARTS` groups of neighbours."""
    count = min(len(shards), MOST_PARTS)
    ends = [len(shards) * at // count for at in range(count + 1)]
    return tuple(tuple(shards[a:b]) for a, b in itertools.pairwise(ends))


def parts_for(shards: Sequence[Shard]) -> int:
    """Into how many parts to cut what is found in `shards`."""
    rows, size = sum(one.rows for one in shards), sum(one.size for one in shards)
    return min(MOST_PARTS, max(1, -(-rows // PART_ROWS), -(-size // PART_BYTES)))


def said(**counts: Any) -> dict[str, int]:
    """What a task found, in numbers."""
    return {name: int(count) for name, count in counts.items()}
