"""Rows to Parquet and CSV whose columns are known only at the end.

Until every row was seen, they wait in a file beside the output.
"""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from selfinstruct.core.errors import UserError
from selfinstruct.steps.rows.chunks import Chunk, Row
from selfinstruct.steps.rows.lines import encode, lines_of
from selfinstruct.steps.rows.parquet_sink import COMPRESSION, widened, without_surrogates

_LENGTH = struct.Struct("<Q")


class _Spool:
    """A file of byte strings that is read once and is gone when closed."""

    def __init__(self, beside: Path) -> None:
        self._path = beside.with_name(f"{beside.name}.rows")
        self._file = self._path.open("w+b")

    def add(self, data: bytes) -> None:
        self._file.write(_LENGTH.pack(len(data)))
        self._file.write(data)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while head := self._file.read(_LENGTH.size):
            yield self._file.read(_LENGTH.unpack(head)[0])

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class SpooledParquet:
    """Rows without a schema: each chunk becomes an Arrow table, and at the end all get one schema.

    Text and numbers in one column have no common type in Parquet.

    Args:
        lenient: write such a column as text, with JSON for what was none, as among rejected rows
            anything may stand anywhere; `UserError` names the column otherwise.
    """

    def __init__(self, path: Path, *, lenient: bool = False) -> None:
        self._path, self._spool, self._lenient = path, _Spool(path), lenient
        self._types: dict[str, Any] = {}
        self._texts: set[str] = set()  # columns of no common type

    def write(self, chunk: Chunk, positions: Sequence[int], added: Sequence[Row] | None) -> None:
        """Keep rows for the end."""
        import pyarrow as pa

        rows = [_row_of(line) for line in lines_of(chunk, positions, added)]
        names = {name: None for row in rows for name in row}
        table = pa.table({name: self._array(name, [r.get(name) for r in rows]) for name in names})
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, table.schema) as stream:
            stream.write_table(table)
        self._spool.add(buffer.getvalue().to_pybytes())

    def _array(self, name: str, cells: list[Any]) -> Any:
        """A column of this chunk; its type joins that of the column so far."""
        import pyarrow as pa

        try:
            found = pa.array(_storable(cells))
            self._types[name] = _common_type(self._types.get(name), found.type)
        except (pa.ArrowException, OverflowError) as error:
            if not self._lenient:
                said = str(error).split("\n", 1)[0]
                raise UserError(
                    f"the column {name!r} cannot be written as Parquet ({said}); write .jsonl or "
                    ".json, which hold rows as they are"
                ) from error
            self._texts.add(name)
            return pa.array([_text_cell(cell) for cell in without_surrogates(cells)], pa.string())
        return found

    def close(self) -> None:
        """Write the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = self._types | dict.fromkeys(self._texts, pa.string())
        schema = pa.schema(list(types.items()))
        try:
            with pq.ParquetWriter(self._path, schema, compression=COMPRESSION) as writer:
                for data in self._spool:
                    table = pa.ipc.open_stream(data).read_all()
                    for at, name in enumerate(table.column_names):
                        if name in self._texts and table.schema.types[at] != pa.string():
                            cells = [_text_cell(cell) for cell in table.column(at).to_pylist()]
                            table = table.set_column(at, name, pa.array(cells, pa.string()))
                    writer.write_table(_as_schema(table, schema))
        finally:
            self._spool.close()

    def abort(self) -> None:
        """Remove the waiting rows."""
        self._spool.close()


def _common_type(before: Any, found: Any) -> Any:
    """The type that holds both. Raises `ArrowException` where there is none that Parquet has."""
    import pyarrow as pa

    if _has_empty_struct(found):
        raise pa.ArrowTypeError("an object without fields")
    if before is None or before == found:
        return found
    parts = [pa.schema([("", one)]) for one in (before, found)]
    return pa.unify_schemas(parts, promote_options="permissive").types[0]


def _has_empty_struct(kind: Any) -> bool:
    inner = [kind.field(at).type for at in range(kind.num_fields)]
    return (str(kind).startswith("struct") and not inner) or any(map(_has_empty_struct, inner))


def _text_cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else encode(value).decode()


def _storable(cells: list[Any]) -> list[Any]:
    """Cells without half surrogate pairs, which are no text to Arrow."""
    try:
        for cell in cells:
            if isinstance(cell, str):
                cell.encode()
            elif isinstance(cell, (dict, list)):
                orjson.dumps(cell)
    except (UnicodeEncodeError, TypeError):
        found: list[Any] = without_surrogates(cells)
        return found
    return cells


def _as_schema(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    try:
        return widened(table, schema)
    except pa.ArrowException:  # what casts cannot do, such as a struct that gained a field
        return pa.Table.from_pylist(table.to_pylist(), schema=schema)


def _row_of(line: bytes) -> Row:
    """A row from JSON text, whatever the standard library takes."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = json.loads(line)
    return value if isinstance(value, dict) else {"value": value}


class Csv:
    """Rows as CSV, under a header of every name that was met; what is no text is JSON."""

    def __init__(self, path: Path) -> None:
        self._path, self._spool = path, _Spool(path)
        self._names: dict[str, None] = {}

    def write(self, chunk: Chunk, positions: Sequence[int], added: Sequence[Row] | None) -> None:
        """Keep rows for the end."""
        for line in lines_of(chunk, positions, added):
            self._names.update(dict.fromkeys(_row_of(line)))
            self._spool.add(line)

    def close(self) -> None:
        """Write the file."""
        try:
            with self._path.open(
                "w", encoding="utf-8", newline="", errors="backslashreplace"
            ) as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self._names)
                for line in self._spool:
                    row = _row_of(line)
                    writer.writerow([_cell(row.get(name)) for name in self._names])
        finally:
            self._spool.close()

    def abort(self) -> None:
        """Remove the waiting rows."""
        self._spool.close()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()
