"""Rows to a file: JSON lines or a JSON list here, Parquet and CSV in `arrow_sinks`.

A sink writes to a file that is not there yet; whoever makes it renames the file when all is whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from selfinstruct.core.errors import UserError
from selfinstruct.steps.rows.chunks import Chunk, Found, Row

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


def encode(value: Any) -> bytes:
    """A row as JSON text. What JSON has no word for becomes text: bytes as base64."""
    try:
        return orjson.dumps(value, default=_as_text, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
        return json.dumps(value, default=_as_text).encode()


def _as_text(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, as pandas has them
        return value.tolist()
    return str(value)


def raw_text(raw: bytes) -> str:
    """What stood where a row could not be read; bytes that are no UTF-8 become ``\\xff``."""
    return raw.decode("utf-8", "backslashreplace")


def lines_of(chunk: Chunk, positions: Sequence[int], added: Sequence[Row] | None) -> list[bytes]:
    """The rows as JSON text on one line each; JSON that was read is passed on as it stood."""
    found = [chunk.rows[at] for at in positions]
    values = iter(chunk.values([at for at in positions if chunk.rows[at].raw is None]))
    lines = [encode(next(values)) if row.raw is None else _as_found(row) for row in found]
    if added is None:
        return lines
    return [_joined(line, more) for line, more in zip(lines, added, strict=True)]


def _as_found(row: Found) -> bytes:
    raw = row.raw or b""
    return encode({"text": raw_text(raw)}) if row.fault is not None and row.value is None else raw


def _joined(line: bytes, added: Row) -> bytes:
    """A row's JSON text with fields added at the end; what is no object is put into a field."""
    if not line.startswith(b"{"):
        line = b'{"value":' + line + b"}"
    inner = line[1:-1].strip()
    return b"{" + inner + (b"," if inner else b"") + encode(added)[1:]


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
    `arrow_sinks.SpooledParquet`. Raises `UserError`.
    """
    from selfinstruct.steps.rows.arrow_sinks import Csv, Parquet, SpooledParquet

    if fmt in ("jsonl", "json"):
        return JsonLines(path, as_list=fmt == "json")
    if fmt == "csv":
        return Csv(path)
    if fmt == "parquet":
        if schema is not None:
            return Parquet(path, schema)
        return SpooledParquet(path, lenient=lenient)
    raise UserError(f"{fmt!r} is no format to write; known are {', '.join(FORMATS)}")
