"""From what a user names to a stream of chunks: a file, a folder, standard input, or memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from selfinstruct.core.errors import UserError
from selfinstruct.steps.rows.arrow_files import (
    arrow_chunks,
    batch_chunks,
    file_schema,
    parquet_chunks,
)
from selfinstruct.steps.rows.chunks import CHUNK_BYTES, CHUNK_ROWS, Chunk, Found
from selfinstruct.steps.rows.text_files import csv_rows, json_lines, json_list, open_text
from selfinstruct.steps.seeds.faults import fault, kind_of, quoted
from selfinstruct.steps.seeds.files import data_files
from selfinstruct.steps.seeds.rows import SNIFFED_BYTES, sniff

STDIN = "-"
_TEXT = {"jsonl": json_lines, "json": json_list, "csv": csv_rows}


class Source(Protocol):
    """Rows that can be read once, in order."""

    name: str

    def chunks(self, judged: Sequence[str]) -> Iterator[Chunk]:
        """The rows; those of `judged` columns are in each `Found.value`. Raises `SeedError`."""
        ...

    def schema(self) -> Any:
        """The Arrow schema of all rows, or None where they have none of their own."""
        ...


class Files:
    """The data files of a path, told by content; `left` are those of held-out splits, not read.

    Raises `SeedError` if there are none, or one is of no known kind.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.files = data_files(path)
        self.left = [
            file for file in data_files(path, held_out=True) if file not in set(self.files)
        ]
        self._root = path if path.is_dir() else path.parent
        self._kinds = [_kind(file) for file in self.files]
        self._open: BinaryIO | None = None
        self._before = 0
        self.size = sum(file.stat().st_size for file in self.files)

    @property
    def all_parquet(self) -> bool:
        """Whether every file is Parquet."""
        return set(self._kinds) == {"parquet"}

    @property
    def names(self) -> list[str]:
        """The files' names, as `Found.where` has them."""
        return [_relative(file, self._root) for file in self.files]

    @property
    def done(self) -> int:
        """Bytes of `size` that were read so far, as nearly as it is known."""
        at = 0 if self._open is None or self._open.closed else self._open.tell()
        return self._before + at

    def chunks(self, judged: Sequence[str]) -> Iterator[Chunk]:
        """The rows of all files, one file after the other."""
        for file, kind in zip(self.files, self._kinds, strict=True):
            name = _relative(file, self._root)
            if kind == "parquet":
                yield from parquet_chunks(file, name, judged)
            elif kind == "arrow":
                yield from arrow_chunks(file, name, judged)
            else:
                with open_text(file) as opened:
                    self._open = opened
                    yield from _gathered(_TEXT[kind](opened, name))
            self._open, self._before = None, self._before + file.stat().st_size

    def schema(self) -> Any:
        """The schema that holds the rows of all files, where they are all Parquet or Arrow."""
        import pyarrow as pa

        if not self._kinds or not set(self._kinds) <= {"parquet", "arrow"}:
            return None
        found = [file_schema(f, k) for f, k in zip(self.files, self._kinds, strict=True)]
        try:
            return pa.unify_schemas(found, promote_options="permissive")
        except pa.ArrowException as error:
            raise fault(
                self.name, f"its files have columns of different kinds ({error})"
            ) from error


class Stdin:
    """JSON lines from standard input."""

    name = "stdin"

    def chunks(self, judged: Sequence[str]) -> Iterator[Chunk]:
        """The rows as they come."""
        yield from _gathered(json_lines(sys.stdin.buffer, self.name))

    def schema(self) -> None:
        """JSON lines have none."""


class Rows:
    """Rows in memory, as mappings."""

    def __init__(self, rows: Iterable[Any], name: str = "row") -> None:
        self.name, self._rows = name, rows

    def chunks(self, judged: Sequence[str]) -> Iterator[Chunk]:
        """The rows in order; the first one is ``row:1``."""
        found = (Found(f"{self.name}:{at}", row) for at, row in enumerate(self._rows, 1))
        yield from _gathered(found)

    def schema(self) -> None:
        """Mappings have none."""


class Table:
    """An Arrow table in memory."""

    def __init__(self, table: Any, name: str = "row") -> None:
        self.name, self._table = name, table

    def chunks(self, judged: Sequence[str]) -> Iterator[Chunk]:
        """The rows in order."""
        yield from batch_chunks(self._table.to_batches(), self.name, judged)

    def schema(self) -> Any:
        """The table's own."""
        return self._table.schema


def open_source(path: str | Path) -> Files | Stdin:
    """The rows of a file, of a folder, or of standard input for ``-``. Raises `SeedError`."""
    return Stdin() if str(path) == STDIN else Files(Path(path))


def of_memory(data: Any, name: str = "row") -> Source:
    """The rows of a list of mappings, a table of pyarrow or pandas, or a `datasets.Dataset`.

    Raises `UserError` for anything else.
    """
    home = type(data).__module__.split(".")[0]
    if home == "pyarrow":
        return Table(data, name)
    if home == "pandas":
        return Rows(data.to_dict("records"), name)
    if isinstance(data, Mapping):
        raise UserError(
            f"data is a {type(data).__name__} of {quoted([str(key) for key in data])}; give one of "
            "its splits, or a list of rows"
        )
    if isinstance(data, Iterable):
        return Rows(data, name)
    raise UserError(f"data is {kind_of(data)}; it must be a path, a table or a list of rows")


def _kind(path: Path) -> str:
    with open_text(path) as file:
        return sniff(file.read(SNIFFED_BYTES), path)


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _gathered(rows: Iterator[Found]) -> Iterator[Chunk]:
    """`rows` in chunks of bounded size."""
    held: list[Found] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row.raw) if row.raw is not None else 0
        if len(held) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield Chunk(held)
            held, size = [], 0
    if held:
        yield Chunk(held)
