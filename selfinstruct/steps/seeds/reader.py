"""Read human-written examples, whatever layout they are in.

    tasks = read_seeds(Path("seeds/general.jsonl"))

The file's kind (JSON lines, a JSON list, CSV, Parquet, a saved dataset) is told by its content, and
the layout by the names of its first record's fields; ``docs/formats.md`` lists them. Nothing is
skipped: the first faulty record stops the reading, named by file, line and field.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from selfinstruct.core.errors import SeedError
from selfinstruct.core.types import SeedTask
from selfinstruct.steps.seeds.faults import fault
from selfinstruct.steps.seeds.files import data_files
from selfinstruct.steps.seeds.layouts import LAYOUTS, Example, Layout, examples, layout_of
from selfinstruct.steps.seeds.rows import Row, iter_rows


def read_seeds(
    path: Path,
    *,
    private: bool = False,
    limit: int | None = None,
    format: str | None = None,  # noqa: A002 (the word users know)
) -> list[SeedTask]:
    """All examples of `path`, or the first `limit`; see `iter_seeds`."""
    return list(iter_seeds(path, private=private, limit=limit, format=format))


def iter_seeds(
    path: Path,
    *,
    private: bool = False,
    limit: int | None = None,
    format: str | None = None,  # noqa: A002 (the word users know)
) -> Iterator[SeedTask]:
    """The examples of a file or folder, in order, read as they are asked for.

    Args:
        path: a file or folder; one under seeds/ that is not there is looked for among the
            shipped files.
        private: marks every example as private.
        limit: read at most this many.
        format: one of `LAYOUTS`, where the layout must not be guessed.

    Ids are unique over `path`: given ones are kept, others are ``<file's stem>-<record number>``.
    Raises `SeedError`.
    """
    if format is not None and format not in LAYOUTS:
        raise SeedError(f"{format!r} is no format of seeds; known are {', '.join(LAYOUTS)}")
    forced = next((layout for layout in LAYOUTS if layout == format), None)
    yield from islice(_tasks(Path(path), private, forced), limit)


def _tasks(path: Path, private: bool, forced: Layout | None) -> Iterator[SeedTask]:
    seen: dict[str, str] = {}  # id -> where it was met
    for file in data_files(path):
        layout = forced
        rows = iter_rows(file)
        for number, row in enumerate(rows, 1):
            layout = layout or layout_of(row.value, row.where)
            for example in _examples(row, layout, rows):
                yield _task(example, row.where, f"{file.stem}-{number}", private, seen)
    if not seen:
        raise fault(str(path), "holds no records; it must hold at least one")


def _examples(row: Row, layout: Layout, rest: Iterator[Row]) -> list[Example]:
    """The row's examples. If the row is faulty, the error also counts the faulty ones after it."""
    try:
        return list(examples(row.value, layout, row.where))
    except SeedError as error:
        more = _count_faulty(rest, layout)
        if not more:
            raise
        said = "1 record after it is" if more == 1 else f"{more} records after it are"
        raise SeedError(f"{error} ({said} faulty too)") from None


def _count_faulty(rows: Iterator[Row], layout: Layout) -> int:
    """How many of `rows` are faulty, up to where the file can no longer be read."""
    count = 0
    with contextlib.suppress(SeedError):
        for row in rows:
            try:
                list(examples(row.value, layout, row.where))
            except SeedError:
                count += 1
    return count


def _task(
    example: Example, where: str, fallback: str, private: bool, seen: dict[str, str]
) -> SeedTask:
    """The seed task, its id unique among `seen`. A given id that is taken is an error."""
    name = example.id
    if not name:
        name, again = fallback, 1
        while name in seen:  # several instances, two files of one stem, or a given id like it
            again += 1
            name = f"{fallback}-{again}"
    elif name in seen:
        raise fault(where, f'field "id": {name!r} is already the id of {seen[name]}')
    seen[name] = where
    return SeedTask(
        id=name,
        instruction=example.instruction,
        input=example.input,
        output=example.output,
        category=example.category,
        source=where,
        private=private,
    )
