"""Rows of text files as a stream: JSON lines, a JSON list, CSV. Memory stays that of a chunk.

What is wrong with one line is a fault of that row, and reading goes on. Where nothing after a
mistake can be trusted (inside a JSON list, after an open quote in CSV) the file is refused with its
line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from selfinstruct.core.errors import SeedError
from selfinstruct.steps.rows.chunks import MAX_ROW_BYTES, Fault, Found
from selfinstruct.steps.seeds.faults import fault
from selfinstruct.steps.seeds.rows import BOM, delimiter_of, long_cells

NOT_JSON, NOT_UTF8, TOO_LONG, WRONG_CELLS = "not_json", "not_utf8", "row_too_long", "wrong_cells"
REASONS = {
    NOT_JSON: "the line is no JSON value",
    NOT_UTF8: "the row holds bytes that are no UTF-8 text",
    TOO_LONG: f"the line has more than {MAX_ROW_BYTES >> 20} MB",
    WRONG_CELLS: "the line has more or fewer cells than the header",
}

_WINDOW = 1 << 20  # characters of a JSON list that are read at a time
_SPACE = " \t\r\n"
_BETWEEN = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=[^ \t\r\n\]])")  # two elements of a list
_PART_OF_NUMBER = 4  # "1e+" is read as 1, though it may go on
_NEAR_END = 16  # a mistake this near to the end of what was read may be a cut token


def json_lines(file: BinaryIO, name: str) -> Iterator[Found]:
    """One row a line; lines of white space are no rows. `name` is the file's, for `where`."""
    number = 0
    while line := file.readline(MAX_ROW_BYTES):
        number += 1
        where = f"{name}:{number}"
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (more := file.readline(1 << 20)) and not more.endswith(b"\n"):
                pass
            yield Found(where, None, line[:1000], Fault(TOO_LONG, REASONS[TOO_LONG]))
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.strip()
        if line:
            yield _json_line(line, where)


def _json_line(line: bytes, where: str) -> Found:
    try:
        return Found(where, orjson.loads(line), line)
    except orjson.JSONDecodeError:
        pass  # the standard library also takes NaN and half a surrogate pair, and says more
    try:
        return Found(where, json.loads(line.decode("utf-8")), line)
    except UnicodeDecodeError as error:
        said = f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not UTF-8"
        return Found(where, None, line, Fault(NOT_UTF8, said))
    except RecursionError:
        return Found(where, None, line, Fault(NOT_JSON, "nested too deeply to be a record"))
    except json.JSONDecodeError as error:
        return Found(where, None, line, Fault(NOT_JSON, f"{error.msg} at column {error.colno}"))
    except ValueError as error:  # a number of thousands of digits
        return Found(where, None, line, Fault(NOT_JSON, str(error)))


def json_list(file: BinaryIO, name: str) -> Iterator[Found]:
    """The elements of one JSON list, each at the line it begins on. Raises `SeedError`.

    A window of the text is decoded at a time by the standard library's scanner, and is made longer
    while an element does not end in it.
    """
    window = _Window(file, name)
    window.skip()
    window.take("[")
    while window.peek() != "]":
        where = f"{name}:{window.line}"
        value, raw = window.element()
        yield Found(where, value, raw)
        if window.goes_on():
            continue
        if window.peek() == ",":
            window.take(",")
            if window.peek() == "]":
                raise window.fault("is not JSON: a comma before the end of the list")
        elif window.peek() != "]":
            raise window.fault("is not JSON: expected a comma or the end of the list")
    window.take("]")
    if window.peek():
        raise window.fault("the list ends here, but more text follows it")


class _Window:
    """The part of a JSON text that is in memory."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        # Bytes that are no UTF-8 become lone surrogates, which the filters reject by name.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._ended = "", 0, False
        self._scan = json.JSONDecoder().raw_decode
        self.line = 1
        self._more()
        self._text = self._text.removeprefix("\ufeff")

    def fault(self, said: str) -> SeedError:
        """An error at the line that the window stands on."""
        return fault(f"{self._name}:{self.line}", said)

    def skip(self) -> None:
        """Go on to the next character that is no white space."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return

    def peek(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        self.skip()
        return self._text[self._at : self._at + 1]

    def take(self, expected: str) -> None:
        """Go past the character `peek` gives."""
        if self.peek() != expected:
            raise self.fault(f"is not JSON: expected {expected!r}")
        self._at += 1

    def goes_on(self) -> bool:
        """Go past a comma with its white space to the next element, where the window shows both."""
        found = _BETWEEN.match(self._text, self._at)
        if found is None:
            return False
        self.line += found[0].count("\n")
        self._at = found.end()
        return True

    def element(self) -> tuple[Any, bytes]:
        """The value that begins here, and its text on one line."""
        if self._at >= len(self._text) and not self.peek():
            raise self.fault("the file ends inside the list; it may have been cut short")
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                # `_more` moves the text, so what is said of a place in it is worked out before.
                cut, said = self._may_be_cut(error), self._not_json(error)
                if cut and self._more():
                    continue
                if cut:
                    said = self.fault(
                        "the file ends inside this record; it may have been cut short"
                    )
                raise said from None
            except RecursionError:
                raise self.fault("is nested too deeply to be a record") from None
            except ValueError as error:
                raise self.fault(f"is not JSON that can be read: {error}") from None
            length = end - self._at
            if end > len(self._text) - _PART_OF_NUMBER and self._more():
                continue
            found = self._text[self._at : self._at + length]
            self._at += length
            raw = found.encode("utf-8", "surrogateescape")
            if "\n" in found or "\r" in found:
                # Inside strings JSON has no line breaks, so each of them is between two tokens.
                self.line += found.count("\n")
                raw = b" ".join(map(bytes.strip, raw.splitlines()))
            return value, raw

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        unfinished = error.msg.startswith("Unterminated string")
        return unfinished or error.pos >= len(self._text) - _NEAR_END

    def _not_json(self, error: json.JSONDecodeError) -> SeedError:
        line = self.line + self._text.count("\n", self._at, error.pos)
        return fault(f"{self._name}:{line}", f"is not JSON: {error.msg} at column {error.colno}")

    def _more(self) -> bool:
        """Read on, dropping what was gone past; False at the end of the file."""
        kept = self._text[self._at :]
        if self._ended:
            return False
        if len(kept) > MAX_ROW_BYTES:
            raise self.fault(f"this record has more than {MAX_ROW_BYTES >> 20} MB")
        data = self._file.read(max(_WINDOW, len(kept)))  # doubled, so that the work stays linear
        self._ended = not data
        self._text, self._at = kept + self._decode(data, not data), 0
        return not self._ended or len(self._text) > len(kept)


def csv_rows(file: BinaryIO, name: str) -> Iterator[Found]:
    """Rows of CSV with a header line; comma, semicolon or tab. Raises `SeedError`."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline()
    mark = delimiter_of(first)
    names = [name.strip() for name in next(csv.reader([first], delimiter=mark), [])]
    with long_cells(MAX_ROW_BYTES):
        reader = csv.reader(text, delimiter=mark, strict=True)
        line = 2
        try:
            for cells in reader:
                if cells:
                    yield _csv_row(cells, names, f"{name}:{line}")
                line = reader.line_num + 2
        except csv.Error as error:
            raise fault(f"{name}:{line}", f"is not CSV: {error}") from error
        finally:
            text.detach()  # the file is closed by whoever opened it


def _csv_row(cells: list[str], names: list[str], where: str) -> Found:
    if len(cells) == len(names):
        return Found(where, dict(zip(names, cells, strict=True)))
    said = f"{len(cells)} cells, but the header names {len(names)}"
    return Found(where, {"cells": cells}, fault=Fault(WRONG_CELLS, said))


def open_text(path: Path) -> BinaryIO:
    """`path` for reading. Raises `SeedError`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise fault(str(path), f"cannot be read: {error.strerror or error}") from error
