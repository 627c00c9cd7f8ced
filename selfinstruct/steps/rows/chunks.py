"""What readers hand on: rows in chunks, each row with the place a person finds it at.

A row is never changed on its way. Rows of JSON files travel as the bytes that were found, rows of
Parquet and Arrow in their record batch, so that types, columns and digits come out as they went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

CHUNK_ROWS = 2000
CHUNK_BYTES = 16 << 20  # a chunk ends when its rows have this many bytes, so that few are in memory
MAX_ROW_BYTES = 256 << 20  # a longer row is not read

Row = dict[str, Any]


class Fault(NamedTuple):
    """Why a row cannot be judged: a reason of `task.REASONS`, and the same in words."""

    reason: str
    detail: str


class Found(NamedTuple):
    """One row as found.

    `where` is ``file:line``, or ``file:row`` in Parquet and Arrow. `value` has at least the fields
    that are judged; it is anything JSON can hold. `raw` is the row as JSON text on one line, where
    the file was JSON; of a row that could not be read, it is what stood there.
    """

    where: str
    value: Any
    raw: bytes | None = None
    fault: Fault | None = None


class Chunk:
    """Some rows that follow each other.

    Args:
        rows: as found.
        batch: the Arrow record batch they came in, row by row.
    """

    def __init__(self, rows: list[Found], batch: Any = None) -> None:
        self.rows = rows
        self.batch = batch

    def values(self, positions: Sequence[int]) -> list[Any]:
        """The whole rows at `positions`, which are in order."""
        if self.batch is None:
            return [self.rows[at].value for at in positions]
        if not len(positions):  # Arrow cannot take nothing
            return []
        found: list[Row] = self.batch.take(list(positions)).to_pylist()
        return found
