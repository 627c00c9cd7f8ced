"""From one file to its rows: JSON lines, a JSON list, CSV, Parquet and Arrow, told by content.

A row keeps the number a person finds it by: the line it begins on in a text file, the row (from 1)
in Parquet and Arrow.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from selfinstruct.core.errors import SeedError
from selfinstruct.steps.seeds.faults import fault, kind_of
from selfinstruct.steps.seeds.layouts import FIELD_NAMES, INSTRUCTION, TELLING

Kind = Literal["jsonl", "json", "csv", "parquet", "arrow"]
OnFault = Callable[[SeedError], None]

BOM = b"\xef\xbb\xbf"
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd"}
DELIMITERS = ",;\t"
SNIFFED_BYTES = 65536
BATCH_ROWS = 1024


class Row(NamedTuple):
    """One record as found: its file, its line or row number, and its fields."""

    file: str
    number: int
    value: dict[str, Any]

    @property
    def where(self) -> str:
        """``file:number``, as messages and `SeedTask.source` name it."""
        return f"{self.file}:{self.number}"


def iter_rows(path: Path, on_fault: OnFault | None = None) -> Iterator[Row]:
    """The rows of the file `path`, in order. Raises `SeedError` at the first that is no record.

    With `on_fault`, what is wrong with one row alone (a line that is not JSON, no object, more or
    fewer cells than the header) is told to it, and reading goes on; what leaves the rest of the
    file in doubt is raised all the same.
    """
    report = on_fault or _raise
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
        kind = sniff(head, path)
        for number, value in READERS[kind](path, report):
            if isinstance(value, dict):
                yield Row(str(path), number, value)
            else:
                said = f"a record must be an object, this is {kind_of(value)}"
                report(fault(f"{path}:{number}", said))
    except OSError as error:
        raise fault(str(path), f"cannot be read: {error.strerror or error}") from error


def _raise(error: SeedError) -> None:
    raise error


def sniff(head: bytes, path: Path) -> Kind:
    """The kind of file that begins with `head`. Raises `SeedError` where it is none we read."""
    for magic, name in PACKED.items():
        if head.startswith(magic):
            raise fault(str(path), f"is packed with {name}; unpack it first")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    text = head.removeprefix(BOM).lstrip()
    suffix = path.suffix.lower()
    if not text:
        raise fault(str(path), "is empty; it must hold at least one record")
    if suffix == ".parquet":
        raise fault(str(path), "is no Parquet file: it does not begin with PAR1")
    if text[:1] in b"{[":
        return "json" if text[:1] == b"[" else "jsonl"
    if suffix in (".json", ".jsonl", ".ndjson"):
        return "jsonl"  # whose reader says on which line it stops being JSON
    if suffix in (".csv", ".tsv") or _has_header(text):
        return "csv"
    raise fault(
        str(path),
        "is no data file: expected JSON lines, a JSON list, Parquet, or CSV whose header names "
        'an "instruction" and an "output"',
    )


def _has_header(text: bytes) -> bool:
    line = text.split(b"\n", 1)[0].decode("utf-8", "replace")
    return any(name in INSTRUCTION for name in _header(line, delimiter_of(line)))


def _header(line: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=delimiter), [])
    return [cell.strip().lower() for cell in cells]


def delimiter_of(line: str) -> str:
    """The delimiter under which the header line has most field names that we know."""
    return max(DELIMITERS, key=lambda mark: len(FIELD_NAMES.intersection(_header(line, mark))))


def _decode(data: bytes, path: Path, *, line: int = 1, offset: int = 0) -> str:
    """`data` as text; it begins on `line` at byte `offset` of the file."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise fault(
            f"{path}:{line}",
            f"byte {offset + error.start} (0x{data[error.start]:02x}) is not UTF-8; "
            "save the file as UTF-8",
        ) from error


def _text(path: Path) -> str:
    return _decode(path.read_bytes(), path).removeprefix("\ufeff")


def _not_json(path: Path, line: int, error: ValueError | RecursionError) -> SeedError:
    if isinstance(error, RecursionError):
        said = "is nested too deeply to be a record"
    elif isinstance(error, json.JSONDecodeError):
        said = f"is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    else:  # a number of thousands of digits
        said = f"is not JSON that can be read: {error}"
    return fault(f"{path}:{line}", said)


def _json_lines(path: Path, report: OnFault) -> Iterator[tuple[int, Any]]:
    """One JSON value a line. Lines end at a line feed only: U+2028 is text."""
    offset, begun = 0, False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _decode(line, path, line=number, offset=offset)
            offset += len(line)
            if number == 1:
                text = text.removeprefix("\ufeff")
            if not text.strip():
                continue
            try:
                value = json.loads(text.rstrip("\r\n"))
            except (ValueError, RecursionError) as error:
                if not begun and (spread := _one_object(path)) is not None:
                    raise spread from error
                report(_not_json(path, number, error))
            else:
                yield number, value
            begun = True  # the first line tells whether the whole file is one object


def _one_object(path: Path) -> SeedError | None:
    """A clearer error where the whole file is one JSON object, spread over lines."""
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError, SeedError):
        return None
    if not isinstance(value, dict):
        return None
    names = ", ".join(f'"{name}"' for name in list(value)[:5])
    return fault(
        str(path),
        f"is one JSON object with the fields {names}; expected a list of records, "
        "or one record a line",
    )


def _json_list(path: Path, _: OnFault) -> Iterator[tuple[int, Any]]:
    """The elements of one JSON list, each with the line it begins on."""
    text = _text(path)
    decode = json.JSONDecoder().raw_decode
    line, counted = 1, 0
    at = _skip(text, _skip(text, 0) + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decode(text, at)
            yield line, value
            at = _skip(text, end)
            if text[at : at + 1] == ",":
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        except json.JSONDecodeError as error:
            raise _not_json(path, error.lineno, error) from error
        except (ValueError, RecursionError) as error:
            raise _not_json(path, line, error) from error
    if _skip(text, at + 1) != len(text):
        line += text.count("\n", counted, at)
        raise fault(f"{path}:{line}", "the list ends here, but more text follows it")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _csv(path: Path, report: OnFault) -> Iterator[tuple[int, Any]]:
    """CSV with a header line; comma, semicolon or tab. A cell may hold line breaks."""
    text = _text(path)
    mark = delimiter_of(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    line = 1
    try:
        with long_cells(len(text)):
            names = [name.strip().lower() for name in next(reader, [])]
            line = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(names):
                    said = f"has {len(cells)} cells, but the header names {len(names)}"
                    report(fault(f"{path}:{line}", said))
                elif cells:
                    yield line, dict(zip(names, cells, strict=True))
                line = reader.line_num + 1
    except csv.Error as error:
        raise fault(f"{path}:{line}", f"is not CSV: {error}") from error


@contextlib.contextmanager
def long_cells(most: int) -> Iterator[None]:
    """Let cells of CSV have `most` characters; the limit is the process's, so it is put back.

    It is never lowered: whoever reads rows one at a time leaves it so between them.
    """
    before = csv.field_size_limit()
    csv.field_size_limit(max(most, before))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, _: OnFault) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            known = [name for name in names if name in FIELD_NAMES]
            if TELLING.isdisjoint(known):  # then all names are told
                known = names
            yield from _numbered(file.iter_batches(batch_size=BATCH_ROWS, columns=known), path)
    except (pa.ArrowException, OSError) as error:
        raise fault(
            str(path), f"is no whole Parquet file; it may have been cut short ({_first(error)})"
        ) from error


def _arrow(path: Path, _: OnFault) -> Iterator[tuple[int, Any]]:
    """The Arrow stream (or file) that `datasets` saves."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                table = pa.ipc.open_file(source)
                batches = (table.get_batch(at) for at in range(table.num_record_batches))
                yield from _numbered(batches, path)
            else:
                source.seek(0)
                yield from _numbered(pa.ipc.open_stream(source), path)
    except (pa.ArrowException, OSError) as error:
        raise fault(
            str(path), f"is no whole Arrow file; it may have been cut short ({_first(error)})"
        ) from error


def _numbered(batches: Any, path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    for batch in batches:
        try:
            values = batch.to_pylist()
        except UnicodeDecodeError as error:
            last = number + batch.num_rows
            said = f"one of the rows up to {last} holds text that is not UTF-8"
            raise fault(f"{path}:{number + 1}", said) from error
        for value in values:
            number += 1
            yield number, value


def _first(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:120]


READERS: dict[Kind, Callable[[Path, OnFault], Iterator[tuple[int, Any]]]] = {
    "jsonl": _json_lines,
    "json": _json_list,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}
