"""A dataset in shards: which row groups of which files are read, and written, at a time.

A row's number is its file's times 2^40 plus its place in the file, so that numbers grow in the
order of the rows, whoever reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfinstruct.core.types import Verdict
from selfinstruct.steps.filters.minhash import NEAR_DUPLICATE
from selfinstruct.steps.rows.arrow_files import batch_chunks
from selfinstruct.steps.rows.arrow_sinks import Parquet
from selfinstruct.steps.rows.chunks import Fault
from selfinstruct.steps.rows.sieve import said_of
from selfinstruct.steps.rows.task import Columns
from selfinstruct.steps.seeds.faults import fault
from selfinstruct.steps.words import unicode_words

FILE_BITS = 40
SHARD_ROWS = 50_000  # about; a row group is never cut
MAX_CHARACTERS, MAX_WORDS = 100_000, 10_000  # of a text that are compared, as `minhash` has it


class Shard(NamedTuple):
    """Row groups of one file; `first` is the number of the first row."""

    path: str
    name: str
    groups: tuple[int, ...]
    first: int


def shards_of(files: Sequence[Path], names: Sequence[str]) -> list[Shard]:
    """The shards of Parquet files, in order. Raises `SeedError` if one is not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[Shard] = []
    for number, (path, name) in enumerate(zip(files, names, strict=True)):
        try:
            with pq.ParquetFile(path) as file:
                counts = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            said = str(error).split("\n", 1)[0][:120]
            raise fault(
                str(path), f"is no whole Parquet file; it may have been cut short ({said})"
            ) from error
        base = number << FILE_BITS
        groups: list[int] = []
        rows = start = 0
        for at, count in enumerate(counts):
            groups.append(at)
            rows += count
            if rows >= SHARD_ROWS or at == len(counts) - 1:
                found.append(Shard(str(path.resolve()), name, tuple(groups), base + start))
                groups, start, rows = [], start + rows, 0
    return found


def place_of(row: int, names: Sequence[str]) -> str:
    """``file:row`` of a row's number, as `rows.chunks.Found` names it."""
    return f"{names[row >> FILE_BITS]}:{(row & ((1 << FILE_BITS) - 1)) + 1}"


def texts_of(shard: Shard, columns: Mapping[str, str] | None) -> Any:
    """A table of the shard's rows: `row`, `text` (words, spaces between), and `fault`.

    `fault` is empty, or the reason and its detail with a tab between, where the row holds no task.
    """
    import pyarrow as pa

    judge = Columns(columns)
    texts, faults = [], []
    for chunk in batch_chunks(_batches(shard), shard.name, sorted(judge.judged)):
        for found in chunk.rows:
            task = judge.task(found)
            if isinstance(task, Fault):
                texts.append("")
                faults.append(f"{task.reason}\t{task.detail}")
            else:
                whole = f"{task.instruction}\n{task.input}\n{task.output}"[:MAX_CHARACTERS]
                words = " ".join(unicode_words(whole)[:MAX_WORDS])
                # Half of a surrogate pair is no text to Arrow, and no letter either.
                texts.append(words.encode("utf-8", "replace").decode())
                faults.append("")
    rows = range(shard.first, shard.first + len(texts))
    return pa.table({"row": pa.array(rows, pa.int64()), "text": texts, "fault": faults})


def write_shard(
    shard: Shard,
    schema: Any,
    rejected: Mapping[int, tuple[int, str]],
    names: Sequence[str],
    kept_path: Path,
    rejected_path: Path,
) -> None:
    """Write the shard's rows to one file, and those of `rejected` to another.

    `rejected` maps a row's number to the row that stays in its place, and to its fault. A file
    without rows is not written.
    """
    with _Part(kept_path, schema) as kept, _Part(rejected_path, schema) as gone:
        row = shard.first
        for chunk in batch_chunks(_batches(shard), shard.name, ()):
            numbers = range(row, row + len(chunk.rows))
            row += len(chunk.rows)
            stays = [at for at, number in enumerate(numbers) if number not in rejected]
            goes = [at for at, number in enumerate(numbers) if number in rejected]
            if stays:
                kept.sink().write(chunk, stays, None)
            if goes:
                said = [_said(numbers[at], rejected[numbers[at]], names) for at in goes]
                gone.sink().write(chunk, goes, said)


def _said(row: int, why: tuple[int, str], names: Sequence[str]) -> dict[str, Any]:
    first, faulty = why
    place = place_of(row, names)
    if faulty:
        reason, _, detail = faulty.partition("\t")
        return said_of(Verdict(candidate_id=place, reason=reason, detail=detail))
    neighbour = place_of(first, names)
    detail = f"{neighbour} is the first of those that it is near to, or near to through others"
    return said_of(
        Verdict(candidate_id=place, reason=NEAR_DUPLICATE, detail=detail, neighbour=neighbour)
    )


def _batches(shard: Shard) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(shard.path) as file:
        yield from file.iter_batches(batch_size=8192, row_groups=list(shard.groups))


class _Part:
    """A Parquet file that is made when there is something to write, and appears at the end."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._path, self._schema = path, schema
        self._part = path.with_name(f".{path.name}.{os.getpid()}")
        self._sink: Parquet | None = None

    def sink(self) -> Parquet:
        if self._sink is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = Parquet(self._part, self._schema)
        return self._sink

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._sink is None:
            return
        self._sink.abort()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
