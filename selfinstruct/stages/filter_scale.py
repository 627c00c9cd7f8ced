"""Filter at scale: the near-duplicates of more rows than memory holds.

The input is read, judged and written in shards by Daft; `steps.scale` says how. Only
near-duplicates are looked for. The other filters look at single rows, or at an index that one
process holds: run `filter` on what is left.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import FolderError, UserError
from selfinstruct.core.recipe import MinHashConfig
from selfinstruct.steps.filters.minhash import NEAR_DUPLICATE
from selfinstruct.steps.rows.arrow_files import file_schema
from selfinstruct.steps.rows.outputs import Outputs, describe_folder
from selfinstruct.steps.rows.sieve import RowFunnel
from selfinstruct.steps.rows.sinks import open_sink
from selfinstruct.steps.rows.source import Files, open_source
from selfinstruct.steps.rows.task import Columns
from selfinstruct.steps.scale.duplicates import find_duplicates
from selfinstruct.steps.scale.runner import Stages, load_daft
from selfinstruct.steps.scale.shards import Shard, shards_of, write_shard
from selfinstruct.steps.seeds.faults import fault, quoted
from selfinstruct.steps.swap import replacing


def filter_at_scale(
    data: str | Path,
    out: str | Path,
    *,
    config: MinHashConfig | None = None,
    columns: Mapping[str, str] | None = None,
    force: bool = False,
) -> RowFunnel:
    """Write the rows of `data` without near-duplicates to the folder `out`, in the Hub's layout.

    Args:
        data: a file or folder; what is not Parquet is first written as Parquet, by one process.
        out: a folder. Next to it, a work folder takes about as much room as the texts.
        config: threshold and n-gram.
        columns: which column is which part of a task, where the names are not usual ones.
        force: replace a folder that was written before.

    Of each component of near-duplicates the first row stays. Raises `UserError`, `SeedError`,
    `FolderError` or `MissingDependency`.
    """
    config = config or MinHashConfig()
    source = open_source(data)
    if not isinstance(source, Files):
        raise UserError("--engine daft reads files or a folder, not standard input")
    outputs = Outputs(out, None, None, force=force, read=source.files)
    if not outputs.is_folder:
        raise UserError(f"{out}: with --engine daft the output is a folder, named without ending")
    daft = load_daft()
    place = Path(out).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.work-") as work,
            replacing(place) as folder,
        ):
            files, names = _parquet(source, Path(work))
            shards = shards_of(files, names)
            if not shards:
                raise fault(source.name, "holds no rows")
            _check_layout(files, columns)
            stages = Stages(daft, Path(work))
            gone = find_duplicates(
                daft,
                stages,
                shards,
                threshold=config.threshold,
                ngram=config.ngram,
                columns=columns,
            )
            funnel = _write(daft, shards, names, gone, folder)
            describe_folder(folder, funnel, source.name)
    except OSError as error:
        raise FolderError(f"{out}: cannot be written ({error.strerror or error})") from error
    return funnel


def _check_layout(files: list[Path], columns: Mapping[str, str] | None) -> None:
    """Raise `SeedError` where a file has no column that tells of a task."""
    judged = Columns(columns).judged
    for path in files:
        names = file_schema(path, "parquet").names
        if not any(name.lower() in judged for name in names):
            raise fault(
                str(path),
                f"no known layout, found the columns {quoted(names)}; name them, as in --columns "
                "instruction=NAME,output=NAME",
            )


def _parquet(source: Files, work: Path) -> tuple[list[Path], list[str]]:
    """The dataset's Parquet files with their names in messages; made where it has none."""
    if source.all_parquet:
        return source.files, source.names
    path = work / "input.parquet"
    sink = open_sink(path, "parquet", source.schema(), lenient=True)
    for chunk in source.chunks(()):
        sink.write(chunk, range(len(chunk.rows)), None)
    sink.close()
    return [path], [Path(source.name).name]


def _write(daft: Any, shards: list[Shard], names: list[str], gone: Any, folder: Path) -> RowFunnel:
    """Write each shard without the rows of `gone`; the funnel of all."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.unify_schemas(
        [pq.read_schema(path) for path in dict.fromkeys(shard.path for shard in shards)],
        promote_options="permissive",
    )
    firsts = np.array([shard.first for shard in shards], dtype=np.int64)
    col, types = daft.col, daft.DataType
    count = len(shards)

    @daft.func.batch(return_dtype=types.int64())  # type: ignore[untyped-decorator]
    def shard_of(rows: Any) -> Any:
        found = np.searchsorted(firsts, rows.to_arrow().to_numpy(), side="right") - 1
        return pa.array(found.astype(np.int64))

    @daft.func.batch(return_dtype=types.int64(), batch_size=1)  # type: ignore[untyped-decorator]
    def write(numbers: Any, rows: Any, firsts: Any, faults: Any) -> Any:
        cells = (column.to_pylist() for column in (numbers, rows, firsts, faults))
        for number, row, first, faulty in zip(*cells, strict=True):
            why = dict(zip(row or (), zip(first or (), faulty or (), strict=True), strict=True))
            part = f"train-{number:05d}-of-{count:05d}.parquet"
            kept, rejected = folder / "data" / part, folder / "rejected" / part
            write_shard(shards[number], schema, why, names, kept, rejected)
        return numbers

    lists = [col(name).list_agg() for name in ("row", "first", "fault")]
    by_shard = gone.with_column("shard", shard_of(col("row"))).groupby("shard").agg(*lists)
    numbers = daft.from_pydict({"shard": list(range(count))})
    joined = numbers.join(by_shard, on="shard", how="left")
    joined.select(write(col("shard"), col("row"), col("first"), col("fault"))).collect()
    return _funnel(daft, shards, gone)


def _funnel(daft: Any, shards: list[Shard], gone: Any) -> RowFunnel:
    import pyarrow.parquet as pq

    col = daft.col
    read = 0
    for path in dict.fromkeys(shard.path for shard in shards):
        read += pq.read_metadata(path).num_rows
    reason = col("fault").split("\t").get(0).alias("reason")
    counted = gone.select(reason).groupby("reason").agg(col("reason").count().alias("rows"))
    counted = counted.to_pydict()
    pairs = sorted(
        zip(counted["rows"], counted["reason"], strict=True), key=lambda p: (-p[0], p[1])
    )
    rejected = {str(name or NEAR_DUPLICATE): int(rows) for rows, name in pairs}
    return RowFunnel(read=read, kept=read - sum(rejected.values()), rejected=rejected, flagged={})
