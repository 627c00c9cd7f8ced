"""Filter: any dataset through the filters, without a run.

    result = filter("data.jsonl", rouge={"threshold": 0.6})    # in memory
    filter_file("data.jsonl", "kept.jsonl")                    # as a stream

Rows are kept as they are, with every column; which row went, and why, is said of each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import FolderError, Interrupted
from selfinstruct.core.recipe_file import check_filters, load_filters
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Verdict
from selfinstruct.steps.charts.filtered import Examples, filtered_page
from selfinstruct.steps.filters.minhash import NEAR_DUPLICATE
from selfinstruct.steps.filters.novelty import NOT_NOVEL
from selfinstruct.steps.filters.semantic import SEMANTIC_DUPLICATE
from selfinstruct.steps.rows.chunks import Chunk
from selfinstruct.steps.rows.outputs import Outputs
from selfinstruct.steps.rows.sieve import RowFunnel, Sieve
from selfinstruct.steps.rows.source import Files, Source, Stdin, of_memory, open_source
from selfinstruct.steps.rows.task import Columns
from selfinstruct.steps.seeds.faults import fault

OnChunk = Callable[[Source, Chunk, list[Verdict]], None]


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that went, and why.

    `position` is its place in the data, from 0, and `row` the row itself. Where it was too close to
    another one, `nearest` is that row, `score` how close (0 to 1), and `threshold` how close is too
    close.
    """

    position: int
    row: Any
    reason: str
    detail: str
    nearest: Any = None
    score: float | None = None
    threshold: float | None = None


class FilterResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `filter` found.

    `kept` is of the kind that was given: a list, a table, a data frame or a dataset, with every
    column; a list of rows for a path. `flags` are what rules found in kept rows, by their position
    in the data. `config` are the filters that were used.
    """

    kept: Any
    rejected: list[RejectedRow]
    flags: dict[int, tuple[str, ...]]
    funnel: RowFunnel
    config: FiltersConfig

    def __repr__(self) -> str:
        funnel = self.funnel
        reasons = ", ".join(f"{name} {number:,}" for name, number in funnel.rejected.items())
        return (
            f"FilterResult({funnel.kept:,} of {funnel.read:,} rows kept; {reasons or 'none'} went)"
        )

    def because(self, reason: str) -> list[RejectedRow]:
        """The rows that went for `reason`."""
        return [row for row in self.rejected if row.reason == reason]


def filter(  # noqa: A001 (the word users know)
    data: Any,
    *,
    config: FiltersConfig | str | Path | None = None,
    against: Sequence[Any] = (),
    columns: Mapping[str, str] | None = None,
    **sections: Any,
) -> FilterResult:
    """The rows of `data` that the filters keep, those that they do not, and why; in memory.

    Args:
        data: a path as for `filter_file`; a list of mappings; a pyarrow table, a pandas data frame
            or a `datasets.Dataset`.
        config: the filters, the YAML file that holds them, or "alpaca"; those for any dataset
            (`recipes/filters/any.yaml`) where not given.
        against: more such data that rows must be novel against.
        columns: which column is which part of a task, where the names are not usual ones.
        sections: keys of the recipe's section `filters` that go before `config`, such as
            ``rouge={"threshold": 0.6}``.

    Raises `RecipeError`, `UserError` or `SeedError`.
    """
    config = _filters(config, sections)
    sieve = Sieve(config, Columns(columns))
    seen: dict[str, Any] = {}
    sieve.prime([_source(one, f"against{n}") for n, one in enumerate(against, 1)], seen)
    thresholds = {
        NOT_NOVEL: config.rouge.threshold,
        NEAR_DUPLICATE: config.minhash.threshold,
        SEMANTIC_DUPLICATE: config.semantic.threshold,
    }
    kept: list[int] = []
    rows: list[Any] = []
    rejected: list[RejectedRow] = []
    flags: dict[int, tuple[str, ...]] = {}
    for chunk in _source(data, "row").chunks(sieve.judged_columns):
        verdicts = sieve.judge(chunk)
        for row, verdict in zip(chunk.values(range(len(verdicts))), verdicts, strict=True):
            position = len(kept) + len(rejected)
            if verdict.kept:
                kept.append(position)
                rows.append(row)
                seen[verdict.candidate_id] = row
                if verdict.flags:
                    flags[position] = verdict.flags
                continue
            found = RejectedRow(
                position=position,
                row=row,
                reason=verdict.reason,
                detail=verdict.detail,
                nearest=seen.get(verdict.neighbour),
                score=verdict.score,
                threshold=thresholds.get(verdict.reason),
            )
            rejected.append(found)
    sieve.finish()
    return FilterResult(
        kept=_part_of(data, kept, rows),
        rejected=rejected,
        flags=flags,
        funnel=sieve.funnel(),
        config=config,
    )


def _filters(config: FiltersConfig | str | Path | None, sections: dict[str, Any]) -> FiltersConfig:
    """The filters with the keys of `sections` changed. Raises `RecipeError`."""
    if not isinstance(config, FiltersConfig):
        config = load_filters(config)
    whole = config.model_dump()
    for name, value in sections.items():
        inner = whole.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, dict)
        whole[name] = {**inner, **value} if both and inner is not None else value
    return check_filters(whole, "filter")


def _source(data: Any, name: str) -> Source:
    return open_source(data) if isinstance(data, (str, Path)) else of_memory(data, name)


def _part_of(data: Any, kept: list[int], rows: list[Any]) -> Any:
    """The kept rows in the kind of thing that `data` is."""
    home = type(data).__module__.split(".")[0]
    if home == "pyarrow":
        import pyarrow as pa

        return data.take(pa.array(kept, pa.int64()))
    if home == "pandas":
        return data.iloc[kept]
    return data.select(kept) if home == "datasets" and hasattr(data, "select") else rows


class FilterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What `filter_file` did.

    `against` counts the rows of other files that rows had to be novel against. `left` names the
    files of held-out splits that were not read. `wrote` are the files written.
    """

    data: str
    funnel: RowFunnel
    against: int
    left: list[str]
    wrote: list[str]


def filter_file(
    data: str | Path,
    out: str | Path,
    *,
    config: FiltersConfig | None = None,
    rejected: str | Path | None = None,
    report: str | Path | None = None,
    against: Sequence[str | Path] = (),
    columns: Mapping[str, str] | None = None,
    fmt: str | None = None,
    force: bool = False,
    on_chunk: OnChunk | None = None,
) -> FilterSummary:
    """Write the rows of `data` that the filters keep to `out`, in order.

    Args:
        data: a file or folder, or ``-`` for JSON lines from standard input.
        out: a file, or ``-`` for JSON lines to standard output; a folder in the Hub's layout where
            the name has no ending.
        config: the filters; those for any dataset where not given.
        rejected: a file for the other rows, each with what was said of it.
        report: an HTML file for the funnel, and ten rows of each reason and flag.
        against: files that rows must be novel against; they are not written.
        columns: which column is which part of a task, where the names are not usual ones.
        fmt: the format of `out` where its ending does not say.
        force: replace what is there.
        on_chunk: called with what was read and judged, chunk by chunk.

    Memory is that of the filters' indexes and a few chunks. Files appear under their names when all
    is written; after a fault nothing has changed. Raises `UserError`, `SeedError`, `FolderError`.
    """
    sieve = Sieve(config or load_filters(), Columns(columns))
    source = open_source(data)
    others = [open_source(path) for path in against]
    read = [file for one in (source, *others) if isinstance(one, Files) for file in one.files]
    outputs = Outputs(out, rejected, fmt, report=report, force=force, read=read)
    examples = None if report is None else Examples(Columns(columns))
    primed = sieve.prime(others)
    with _told(outputs), outputs.writing(source.schema()) as writing:
        for chunk in source.chunks(sieve.judged_columns):
            verdicts = sieve.judge(chunk)
            writing.write(chunk, verdicts)
            if examples is not None:
                examples.add(chunk, verdicts)
            if on_chunk is not None:
                on_chunk(source, chunk, verdicts)
        sieve.finish()
        funnel = sieve.funnel()
        if not funnel.read:
            raise fault(source.name, "holds no rows")
        writing.describe(funnel, data=source.name)
        if examples is not None:
            writing.report(filtered_page(Path(source.name).name, funnel, examples))
    left = [] if isinstance(source, Stdin) else [str(file) for file in source.left]
    return FilterSummary(
        data=source.name, funnel=funnel, against=primed, left=left, wrote=outputs.names
    )


@contextlib.contextmanager
def _told(outputs: Outputs) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise Interrupted("standard output was closed by its reader; nothing was changed") from None
    except OSError as error:
        raise FolderError(
            f"{' and '.join(outputs.names)}: cannot be written ({error.strerror or error}); "
            "nothing was changed"
        ) from error
