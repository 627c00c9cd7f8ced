"""Rows of Parquet, of Arrow files as `datasets` saves them, and of tables in memory, by batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from selfinstruct.steps.rows.chunks import CHUNK_BYTES, CHUNK_ROWS, Chunk, Fault, Found
from selfinstruct.steps.rows.lines import encode, raw_text
from selfinstruct.steps.rows.text_files import NOT_UTF8
from selfinstruct.steps.seeds.faults import fault


def parquet_chunks(path: Path, name: str, judged: Sequence[str]) -> Iterator[Chunk]:
    """The rows of a Parquet file; of the `judged` columns, `Found.value` has what is there.

    Raises `SeedError` if the file is not whole.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from batch_chunks(file.iter_batches(batch_size=CHUNK_ROWS), name, judged)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "Parquet", error) from error


def arrow_chunks(path: Path, name: str, judged: Sequence[str]) -> Iterator[Chunk]:
    """The same for an Arrow stream or file. Raises `SeedError`."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                table = pa.ipc.open_file(source)
                batches = (table.get_batch(at) for at in range(table.num_record_batches))
                yield from batch_chunks(batches, name, judged)
            else:
                source.seek(0)
                yield from batch_chunks(pa.ipc.open_stream(source), name, judged)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "Arrow", error) from error


def batch_chunks(batches: Iterable[Any], name: str, judged: Sequence[str]) -> Iterator[Chunk]:
    """Chunks of record batches, cut small enough to be held as Python objects."""
    number = 0
    for whole in batches:
        rows = max(1, min(CHUNK_ROWS, whole.num_rows * CHUNK_BYTES // max(1, whole.nbytes)))
        for start in range(0, whole.num_rows, rows):
            batch = whole.slice(start, rows)
            yield Chunk(_found(batch, name, number, judged), batch)
            number += batch.num_rows


def file_schema(path: Path, kind: str) -> Any:
    """The Arrow schema of a Parquet or Arrow file. Raises `SeedError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if kind == "parquet":
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source).schema
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, kind.capitalize(), error) from error


def _found(batch: Any, name: str, before: int, judged: Sequence[str]) -> list[Found]:
    known = [column for column in batch.schema.names if column.lower() in judged]
    part = batch.select(known or batch.schema.names)
    places = [f"{name}:{before + at}" for at in range(1, batch.num_rows + 1)]
    try:
        return [Found(place, row) for place, row in zip(places, part.to_pylist(), strict=True)]
    except UnicodeDecodeError:
        return [_one(batch.slice(at, 1), place) for at, place in enumerate(places)]


def _one(batch: Any, place: str) -> Found:
    """The row of a batch of one; where its text is broken, with the bytes written out."""
    try:
        return Found(place, batch.to_pylist()[0])
    except UnicodeDecodeError as error:
        said = f"byte {error.start + 1} of a text is not UTF-8"
    row = {}
    for column in batch.schema.names:
        cell = batch.column(column)
        try:
            row[column] = cell[0].as_py()
        except UnicodeDecodeError:
            row[column] = raw_text(cell.cast("binary")[0].as_py()) if _is_text(cell) else str(cell)
    return Found(place, row, encode(row), Fault(NOT_UTF8, said))


def _is_text(cell: Any) -> bool:
    return str(cell.type) in ("string", "large_string")


def _broken(path: Path, kind: str, error: Exception) -> Exception:
    said = str(error).split("\n", 1)[0][:120]
    return fault(str(path), f"is no whole {kind} file; it may have been cut short ({said})")
