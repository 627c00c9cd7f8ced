"""Rows as JSON text, one line each."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import orjson

from selfinstruct.steps.rows.chunks import Chunk, Found, Row


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
