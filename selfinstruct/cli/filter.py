"""``selfinstruct filter DATA -o OUT``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from selfinstruct.cli.common import console, json_option, print_json
from selfinstruct.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from selfinstruct.core.sections.filters import FiltersConfig
    from selfinstruct.core.types import Verdict
    from selfinstruct.stages.filter import FilterSummary, OnChunk
    from selfinstruct.steps.rows.chunks import Chunk
    from selfinstruct.steps.rows.sieve import RowFunnel
    from selfinstruct.steps.rows.source import Source

SNIPPET = 100


@click.command("filter")
@click.argument("data")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    metavar="OUT",
    help="A file (.jsonl, .json, .parquet, .csv), a folder in the Hub's layout, or - for JSON "
    "lines to standard output.",
)
@click.option("--rejected", metavar="FILE", help="Write the other rows there, with their reasons.")
@click.option(
    "--report",
    metavar="FILE.html",
    help="Write a page there: how many rows went for what, and ten examples of each.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    help="Keep only what is novel next to these rows too. Repeatable.",
)
@click.option(
    "--filters",
    metavar="FILE",
    help="A recipe, or its section filters, as YAML; or a name: any, the default, leaves out the "
    "rules on English wording, alpaca has Stanford Alpaca's rules alone.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, such as filters.rouge.threshold=0.6. Repeatable.",
)
@click.option(
    "--columns",
    metavar="PART=NAME,...",
    help="Which column is the instruction, the input, the output, where names are not usual ones.",
)
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["jsonl", "json", "parquet", "csv", "hub"]),
    help="The format of OUT where its ending does not say.",
)
@click.option(
    "--engine",
    type=click.Choice(["stream", "daft"]),
    default="stream",
    show_default=True,
    help="daft finds near-duplicates, and nothing else, among more rows than memory holds.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="For daft: have the work done by the Ray cluster there, such as auto or 10.0.0.1:6379.",
)
@click.option("--explain", is_flag=True, help="Print a line for each row: what became of it, why.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@json_option
def command(
    data: str,
    out: str,
    rejected: str | None,
    report: str | None,
    against: tuple[str, ...],
    filters: str | None,
    overrides: tuple[str, ...],
    columns: str | None,
    fmt: str | None,
    engine: str,
    ray: str | None,
    explain: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the rows of DATA that the filters keep to OUT, with every column they have.

    DATA is a file (JSON lines, a JSON list, CSV, Parquet), a folder as the Hub or `datasets` lays
    it out, or - for JSON lines from standard input. The filters are those of a run, but for the
    rules on English wording; no run and no teacher is needed. At the end a table says how many rows
    went for which reason.
    """
    from selfinstruct.core.recipe_file import load_filters
    from selfinstruct.stages.filter import filter_file

    config = load_filters(filters, overrides)
    if engine == "daft":
        wrong = {
            "rejected": rejected,
            "report": report,
            "against": against,
            "format": fmt,
            "explain": explain,
        }
        _at_scale(data, out, config, _columns(columns), ray, force, as_json, wrong)
        return
    if ray is not None:
        raise UserError("--ray is for --engine daft")
    busy = as_json or out == "-"  # standard output holds data, so words go elsewhere
    with _watching(explain, to_stderr=busy) as on_chunk:
        summary = filter_file(
            data,
            out,
            config=config,
            rejected=rejected,
            report=report,
            against=against,
            columns=_columns(columns),
            fmt=fmt,
            force=force,
            on_chunk=on_chunk,
        )
    for file in summary.left:
        click.echo(f"not read: {file} (a held-out split; name the file to filter it)", err=True)
    if as_json and out != "-":
        print_json(summary)
    else:
        _print(summary, to_stderr=busy)


def _at_scale(
    data: str,
    out: str,
    config: FiltersConfig,
    columns: dict[str, str],
    ray: str | None,
    force: bool,
    as_json: bool,
    wrong: dict[str, Any],
) -> None:
    from selfinstruct.stages.filter_scale import filter_at_scale

    for name, given in wrong.items():
        if given:
            why = "its folder has rejected rows" if name == "rejected" else "it is for the stream"
            raise UserError(f"--{name} is not for --engine daft; {why}")
    if not config.minhash.enabled:
        raise UserError("filters.minhash.enabled is false, and --engine daft does nothing else")
    funnel = filter_at_scale(
        data,
        out,
        config=config.minhash,
        columns=columns,
        ray=ray,
        force=force,
        tell=lambda line: click.echo(line, err=True),
    )
    if as_json:
        print_json(funnel)
    else:
        _print_funnel(funnel, console())
        click.echo(out)


def _columns(text: str | None) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")] if text else []
    for part, equals, name in pairs:
        if not (part.strip() and equals and name.strip()):
            raise UserError(f"--columns {text}: write it as instruction=NAME,output=NAME")
    return {part.strip(): name.strip() for part, _, name in pairs}


@contextlib.contextmanager
def _watching(explain: bool, *, to_stderr: bool) -> Iterator[OnChunk]:
    """What is called with each chunk: it shows progress on a terminal, and explains rows."""
    with contextlib.ExitStack() as stack:
        advance: Callable[[Source, int], None] = lambda source, rows: None  # noqa: E731
        if sys.stderr.isatty() and not (explain and sys.stdout.isatty()):
            advance = stack.enter_context(_progress())

        def on_chunk(source: Source, chunk: Chunk, verdicts: list[Verdict]) -> None:
            if explain:
                for row, verdict in zip(chunk.rows, verdicts, strict=True):
                    click.echo(_line(row.value, verdict), err=to_stderr)
            advance(source, len(verdicts))

        yield on_chunk


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Source, int], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[rows]:,} rows"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rows=0)
        rows = 0

        def advance(source: Source, more: int) -> None:
            nonlocal rows
            rows += more
            size = getattr(source, "size", None)  # standard input has none
            bar.update(task, rows=rows, total=size, completed=getattr(source, "done", 0))

        yield advance


def _line(value: Any, verdict: Verdict) -> str:
    """A row's place, what became of it, why, and how it begins, with tabs between."""
    fate = verdict.reason or "kept"
    why = verdict.detail or ", ".join(verdict.flags)
    begins = " ".join(_begins(value).split())[:SNIPPET]
    cells = (verdict.candidate_id, fate, why, begins)
    text = "\t".join(" ".join(cell.split()) for cell in cells)
    return text.encode("utf-8", "backslashreplace").decode()


def _begins(value: Any) -> str:
    """The first text in a row."""
    if isinstance(value, str):
        return value[: 2 * SNIPPET]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((text for part in parts if (text := _begins(part))), "")


def _print(summary: FilterSummary, *, to_stderr: bool) -> None:
    out = console(stderr=to_stderr)
    _print_funnel(summary.funnel, out)
    if summary.against:
        out.print(f"novel against {summary.against:,} rows")
    for name in summary.wrote:
        out.print(name, markup=False)


def _print_funnel(funnel: RowFunnel, out: Console) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(f"{funnel.read:,}", "rows read")
    table.add_row(f"[green]{funnel.kept:,}[/]", "  [green]kept[/]")
    for rule, number in funnel.flagged.items():
        table.add_row(f"{number:,}", f"    of them flagged: {rule.replace('_', ' ')}")
    for reason, number in funnel.rejected.items():
        table.add_row(f"[red]{number:,}[/]", f"  {reason.replace('_', ' ')}")
    out.print(table)
