"""A dataset in shards: which row groups of which files are read, and written, at a time.

How rows are numbered is said in `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfinstruct.steps.seeds.faults import fault

FILE_BITS = 36
SHARD_ROWS = 50_000  # about; a row group is never cut
BATCH_ROWS = 8192


class Shard(NamedTuple):
    """Row groups of one file.

    Args:
        number: of the shard.
        name: of the file in messages.
        first: the number of the first row.
        size: bytes before compression.
    """

    number: int
    path: str
    name: str
    groups: tuple[int, ...]
    first: int
    rows: int
    size: int


def shards_of(files: Sequence[Path], names: Sequence[str]) -> list[Shard]:
    """The shards of Parquet files, in order. Raises `SeedError` if one is not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[Shard] = []
    for number, (path, name) in enumerate(zip(files, names, strict=True)):
        try:
            with pq.ParquetFile(path) as file:
                found_groups = [file.metadata.row_group(at) for at in range(file.num_row_groups)]
                sizes = [(one.num_rows, one.total_byte_size) for one in found_groups]
        except (pa.ArrowException, OSError) as error:
            raise _broken(str(path), error) from error
        base = number << FILE_BITS
        groups: list[int] = []
        start = rows = size = 0
        for at, (count, bytes_) in enumerate(sizes):
            groups.append(at)
            rows, size = rows + count, size + bytes_
            if rows >= SHARD_ROWS or at == len(sizes) - 1:
                whole = str(path.resolve())
                first = base + start
                found.append(Shard(len(found), whole, name, tuple(groups), first, rows, size))
                groups, start, rows, size = [], start + rows, 0, 0
    return found


def place_of(row: int, names: Sequence[str]) -> str:
    """``file:row`` of a row's number, as `rows.chunks.Found` names it."""
    return f"{names[row >> FILE_BITS]}:{(row & ((1 << FILE_BITS) - 1)) + 1}"


def batches_of(shard: Shard) -> Iterator[Any]:
    """The rows as record batches. Raises `SeedError` where the file is broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(shard.path) as file:
        batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=list(shard.groups))
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise _broken(shard.path, error) from error
            if batch is None:
                return
            yield batch


def _broken(path: str, error: Exception) -> Exception:
    said = str(error).split("\n", 1)[0][:120]
    return fault(path, f"is no whole Parquet file; it may have been cut short ({said})")
