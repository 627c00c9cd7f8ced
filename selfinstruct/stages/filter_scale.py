"""Filter at scale: the near-duplicates of more rows than memory holds, on one machine or many.

The input is read, judged and written in shards, by processes here or by a Ray cluster's workers;
`steps.scale` says how. Only near-duplicates are looked for. The other filters look at single rows,
or at an index that one process holds: run `filter` on what is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock
import orjson

from selfinstruct import __version__
from selfinstruct.core.errors import FolderError, UserError
from selfinstruct.core.sections.filters import MinHashConfig
from selfinstruct.steps.rows.arrow_files import file_schema
from selfinstruct.steps.rows.outputs import Outputs, describe_folder
from selfinstruct.steps.rows.sieve import RowFunnel
from selfinstruct.steps.rows.sinks import open_sink
from selfinstruct.steps.rows.source import Files, open_source
from selfinstruct.steps.rows.task import Columns
from selfinstruct.steps.scale.bands import FIRST
from selfinstruct.steps.scale.duplicates import drop_duplicates
from selfinstruct.steps.scale.plan import Plan, grouped, parts_for
from selfinstruct.steps.scale.ray_workers import OnRay
from selfinstruct.steps.scale.runner import load_daft
from selfinstruct.steps.scale.shards import shards_of
from selfinstruct.steps.scale.workers import DONE, JOB, Here
from selfinstruct.steps.seeds.faults import fault, quoted
from selfinstruct.steps.swap import replacing


def filter_at_scale(
    data: str | Path,
    out: str | Path,
    *,
    config: MinHashConfig | None = None,
    columns: Mapping[str, str] | None = None,
    ray: str | None = None,
    force: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> RowFunnel:
    """Write the rows of `data` without near-duplicates to the folder `out`, in the Hub's layout.

    Args:
        data: a file or folder; what is not Parquet is first written as Parquet, by one process.
        out: a folder. Next to it, a work folder takes about as much room as the texts; if the job
            is stopped, it stays, and the same call goes on from it.
        config: threshold and n-gram.
        columns: which column is which part of a task, where the names are not usual ones.
        ray: the address of a Ray cluster, or ``auto``; this machine without it. `data` and `out`
            must then be on storage that every node sees under the same path.
        force: replace a folder that was written before.
        tell: is given lines about the progress.

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
    FIRST.shape(config.threshold)
    load_daft()
    place = Path(out).resolve()
    asked = [config.threshold, config.ngram, dict(columns or {})]
    read = [[str(file.resolve()), *_state(file)] for file in source.files]
    try:
        with _work_folder(place, orjson.dumps([__version__, asked, read])) as work:
            plan = _plan(source, work, config, columns)
            with contextlib.closing(_workers(ray, work, tell)) as workers:
                rejected = drop_duplicates(workers, plan)
            rows = sum(shard.rows for group in plan.groups for shard in group)
            order = sorted(rejected.items(), key=lambda one: (-one[1], one[0]))
            kept = rows - sum(rejected.values())
            funnel = RowFunnel(read=rows, kept=kept, rejected=dict(order), flagged={})
            with replacing(place) as folder:
                # Not moved: until `out` is there, this is all that the same call could go on from.
                for part in plan.out.iterdir():
                    shutil.copytree(part, folder / part.name, copy_function=_link)
                describe_folder(folder, funnel, source.name)
    except OSError as error:
        raise FolderError(f"{out}: cannot be written ({error.strerror or error})") from error
    return funnel


def _workers(ray: str | None, work: Path, tell: Callable[[str], None]) -> Here | OnRay:
    return Here(tell) if ray is None else OnRay(ray, work / "ray.log", tell)


def _link(source: str, target: str) -> None:
    """The file under a second name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _work_folder(place: Path, job: bytes) -> Iterator[Path]:
    """A folder beside `place`: that of the same job where it was stopped, or an empty one.

    It is removed when the block ends, and stays if the block raises when tasks have been done.
    """
    work = place.with_name(f".{place.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(work / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise FolderError(f"{place}: another process is writing this folder") from error
    try:
        if not (work / JOB).is_file() or (work / JOB).read_bytes() != job:
            (work / JOB).unlink(missing_ok=True)  # first: nobody trusts what is left after it
            for left in work.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
                elif left.name != "lock":
                    left.unlink()
            (work / JOB).write_bytes(job)
        try:
            yield work
        except BaseException:
            if not (work / DONE).is_dir():
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()


def _plan(
    source: Files, work: Path, config: MinHashConfig, columns: Mapping[str, str] | None
) -> Plan:
    files, names = _parquet(source, work)
    shards = shards_of(files, names)
    if not shards:
        raise fault(source.name, "holds no rows")
    _check_layout(files, columns)
    return Plan(
        work=work,
        out=work / "out",
        parts=parts_for(shards),
        groups=grouped(shards),
        names=tuple(names),
        threshold=config.threshold,
        ngram=config.ngram,
        columns=None if columns is None else dict(columns),
    )


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
    if not path.is_file():
        beside = path.with_suffix(".part")
        sink = open_sink(beside, "parquet", source.schema(), lenient=True)
        for chunk in source.chunks(()):
            sink.write(chunk, range(len(chunk.rows)), None)
        sink.close()
        beside.replace(path)
    return [path], [Path(source.name).name]
