"""Rows to Parquet whose Arrow schema is known: batches go through as they are, types and all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfinstruct.steps.rows.chunks import Chunk, Row

COMPRESSION = "zstd"


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
        table = widened(table, self._schema)
        if added is not None:
            more = pa.Table.from_pylist(
                [without_surrogates(row) for row in added], schema=_added_schema()
            )
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


def _added_schema() -> Any:
    """The Arrow schema of what is said of a rejected row; see `sieve.said_of`."""
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


def widened(table: Any, schema: Any) -> Any:
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


def without_surrogates(value: Any) -> Any:
    """`value` with each half of a surrogate pair written out, as ``\\ud83d``."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(part) for name, part in value.items()}
    return [without_surrogates(part) for part in value] if isinstance(value, list) else value
