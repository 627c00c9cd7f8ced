"""Rows to Parquet and CSV.

Both need to know every column before the first row is written. Where the source says so, batches go
through as they are; otherwise rows wait in a file beside the output until all of them were seen.
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
from selfinstruct.steps.rows.sinks import encode, lines_of

COMPRESSION = "zstd"
_LENGTH = struct.Struct("<Q")


class Parquet:
    """Rows whose Arrow schema is known: batches are cut and written, types and all.

    Args:
        schema: of the rows; batches with fewer columns, or narrower ones, are widened to it.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        self._path, self._schema = path, schema
        self._writer: Any = None

    def write(self, chunk: Chunk, positions: Sequence[int], added: Sequence[Row] | None) -> None:
        """Write rows at once, as a row group."""
        import pyarrow as pa

        table = pa.Table.from_batches([chunk.batch]).take(list(positions))
        table = _widened(table, self._schema)
        if added is not None:
            more = pa.Table.from_pylist([_clean(row) for row in added], schema=added_schema())
            kept = [name for name in table.column_names if name not in more.column_names]
            # What metadata says of the columns would no longer be true.
            table = table.select(kept).replace_schema_metadata(None)
            for name in more.column_names:
                table = table.append_column(more.schema.field(name), more.column(name))
        self._into(table)

    def _into(self, table: Any) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression=COMPRESSION)
        self._writer.write_table(table)

    def close(self) -> None:
        """End the file; without rows it has the schema alone."""
        if self._writer is None:
            self._into(self._schema.empty_table())
        self._writer.close()

    def abort(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def added_schema() -> Any:
    """The Arrow schema of what is said of a rejected row; see `steps.rows.verdicts`."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("filter_row", text),
            ("filter_reason", text),
            ("filter_detail", text),
            ("filter_neighbour", text),
            ("filter_score", pa.float64()),
        ]
    )


def _widened(table: Any, schema: Any) -> Any:
    """`table` in `schema`: columns that are not there are null."""
    import pyarrow as pa

    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


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
            return pa.array([_text_cell(cell) for cell in _clean(cells)], pa.string())
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
        found: list[Any] = _clean(cells)
        return found
    return cells


def _clean(value: Any) -> Any:
    """`value` with each half of a surrogate pair written out, as ``\\ud83d``."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_clean(name): _clean(part) for name, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value


def _as_schema(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    try:
        return _widened(table, schema)
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
