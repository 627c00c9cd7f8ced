"""Rows to a file: JSON lines or a JSON list here, Parquet and CSV in modules of their own.

A sink writes to a file that is not there yet; whoever makes it renames the file when all is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from selfinstruct.core.errors import UserError
from selfinstruct.steps.rows.chunks import Chunk, Row
from selfinstruct.steps.rows.lines import lines_of
from selfinstruct.steps.rows.parquet_sink import Parquet
from selfinstruct.steps.rows.spooled_sinks import Csv, SpooledParquet

FORMATS = ("jsonl", "json", "parquet", "csv")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"} | {
    ".csv": "csv",
    ".tsv": "csv",
}


class Sink(Protocol):
    """Where rows go."""

    def write(self, chunk: Chunk, positions: Sequence[int], added: Sequence[Row] | None) -> None:
        """Write the rows of `chunk` at `positions`, each with the fields of `added`."""
        ...

    def close(self) -> None:
        """End the file. Raises `UserError` where its format cannot hold the rows."""
        ...

    def abort(self) -> None:
        """Let go of the file, ended or not; it will be removed if it was not."""
        ...


def format_of(path: str | Path, given: str | None = None) -> str:
    """The format of a file to be written: the one given, else its ending's; "" for none known."""
    return given or _ENDINGS.get(Path(path).suffix.lower(), "")


class JsonLines:
    """One row a line; or, `as_list`, a JSON list with an element a line."""

    def __init__(self, path: Path, *, as_list: bool = False) -> None:
        self._file = path.open("wb")
        self._list = as_list
        self._began = False

    def write(self, chunk: Chunk, positions: Sequence[int], added: Sequence[Row] | None) -> None:
        """Write rows at once."""
        lines = lines_of(chunk, positions, added)
        if not lines:
            return
        if self._list:
            self._file.write((b",\n" if self._began else b"[\n") + b",\n".join(lines))
        else:
            self._file.write(b"\n".join(lines) + b"\n")
        self._began = True

    def close(self) -> None:
        """End the list."""
        if self._list:
            self._file.write(b"\n]\n" if self._began else b"[]\n")
        self._file.close()

    def abort(self) -> None:
        """Close the file."""
        self._file.close()


def open_sink(path: Path, fmt: str, schema: Any = None, *, lenient: bool = False) -> Sink:
    """A sink that writes `path`, which is not there yet, in one of `FORMATS`.

    `schema` is the Arrow schema of the rows, where their source has one; for `lenient` see
    `SpooledParquet`. Raises `UserError`.
    """
    if fmt in ("jsonl", "json"):
        return JsonLines(path, as_list=fmt == "json")
    if fmt == "csv":
        return Csv(path)
    if fmt == "parquet":
        if schema is not None:
            return Parquet(path, schema)
        return SpooledParquet(path, lenient=lenient)
    raise UserError(f"{fmt!r} is no format to write; known are {', '.join(FORMATS)}")
