"""Read any instruction dataset for selection: each row as it was, and as a task.

A row that is no whole task (no output, a wrong type) is named and left out, and reading goes on. A
file that cannot be read as rows at all is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from selfinstruct.core.errors import SeedError
from selfinstruct.core.types import SeedTask
from selfinstruct.steps.seeds.files import data_files
from selfinstruct.steps.seeds.given import unique
from selfinstruct.steps.seeds.layouts import Layout, examples, layout_of
from selfinstruct.steps.seeds.rows import Row, iter_rows


class Read(NamedTuple):
    """A dataset in memory. `rows` are the original rows beside `tasks`; `faults` one line each."""

    tasks: list[SeedTask]
    rows: list[dict[str, Any]]
    faults: list[str]


def read_dataset(path: Path) -> Read:
    """The tasks of a file or folder (JSON lines, JSON, CSV, Parquet, a `datasets` folder).

    Ids are unique: a given one that is taken gets a number behind it. Raises `SeedError` where no
    row is a whole task, or a file cannot be read.
    """
    read = Read([], [], [])
    seen: dict[str, int] = {}
    for file in data_files(path):
        layout: Layout | None = None
        for number, row in enumerate(_rows(file), 1):
            try:
                layout = layout or layout_of(row.value, row.where)
                found = list(examples(row.value, layout, row.where))
            except SeedError as error:
                read.faults.append(str(error))
                continue
            for example in found:
                name = unique(example.id or f"{file.stem}-{number}", seen)
                read.tasks.append(
                    SeedTask(
                        id=name,
                        instruction=example.instruction,
                        input=example.input,
                        output=example.output,
                        category=example.category,
                        source=row.where,
                    )
                )
                read.rows.append(row.value)
    if not read.tasks:
        why = f"; the first fault: {read.faults[0]}" if read.faults else ""
        raise SeedError(f"{path}: holds no whole record{why}")
    return read


def _rows(file: Path) -> Iterator[Row]:
    """The rows of a file with all columns; the reader of seeds leaves out unknown ones."""
    if file.suffix.lower() != ".parquet":
        yield from iter_rows(file)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            number = 0
            for batch in opened.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(str(file), number, value)
    except (pa.ArrowException, OSError) as error:
        first = str(error).split("\n", 1)[0][:120]
        raise SeedError(f"{file}: no whole Parquet file ({first}); was it cut short?") from error
