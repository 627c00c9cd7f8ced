"""``selfinstruct select SOURCE``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selfinstruct.cli.common import (
    Stopper,
    console,
    force_option,
    json_option,
    print_json,
    set_option,
    with_budget,
)
from selfinstruct.core.errors import UserError

if TYPE_CHECKING:
    from selfinstruct.engine.selection import Selection

METHODS = ("top_k", "random", "k_center", "facility_location")
LINE_SECONDS = 5.0


@click.command("select")
@click.argument("source", type=click.Path())
@click.option("--method", type=click.Choice(METHODS), help="How records are chosen.")
@click.option("--count", type=click.IntRange(min=1), help="Records to select.")
@click.option("--score", help="The score that top_k goes by, such as output_words.")
@click.option("--max-cost", metavar="DOLLARS", help="Never spend more than this on calls.")
@set_option
@click.option(
    "--recipe",
    type=click.Path(dir_okay=False),
    help="For a dataset: take the section select, and what it needs, from this recipe.",
)
@click.option(
    "-o", "--output", type=click.Path(file_okay=False), help="For a dataset: the folder to write."
)
@force_option
@json_option
def command(
    source: str,
    method: str | None,
    count: int | None,
    score: str | None,
    max_cost: str | None,
    overrides: tuple[str, ...],
    recipe: str | None,
    output: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Select the records that go into the dataset, and say why the others do not.

    SOURCE is a run's folder, or any dataset: JSON lines, JSON, CSV, Parquet, or a folder of them.
    The settings are the recipe's section select; a run remembers them, and export and
    train-student use the selection from then on (--set select=null ends that). From a dataset, the
    selected rows, the scores and a summary are written to the folder --output.
    """
    from selfinstruct import api

    changes = [
        *with_budget(overrides, None, max_cost),
        *(
            f"select.{name}={value}"
            for name, value in (("method", method), ("count", count), ("score", score))
            if value is not None
        ),
    ]
    stopper = Stopper(lambda line: click.echo(line, err=True))
    say = None if as_json else progress_line(lambda line: click.echo(line, err=True))
    if (Path(source) / "recipe.yaml").is_file():
        if recipe is not None or output is not None:
            raise UserError(f"{source}: is a run, which has its own recipe and folder")
        run = api.Run(source)
        run.configure(*changes)
        chosen = run.aselect(force=force, on_progress=say, on_stop=stopper.arm)
        private = run.recipe.is_local
        summary, place = stopper.run(chosen, private=private), run.folder.selection
    else:
        if output is None:
            raise UserError(f"{source}: is no run, so say where to write with --output FOLDER")
        work = api.aselect_dataset(
            source,
            output,
            recipe,
            overrides=changes,
            force=force,
            on_progress=say,
            on_stop=stopper.arm,
        )
        summary, place = stopper.run(work, private=True), Path(output)
    if as_json:
        print_json(summary)
    else:
        _print(summary, place)


def progress_line(say: Callable[[str], None]) -> Callable[[str, int, int], None]:
    """An `on_progress` that says a line at most every few seconds, and at the end of each part."""
    last = time.monotonic()

    def line(name: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS or (done == total and total > 1):
            last = now
            say(f"  {name} {done:,}/{total:,}")

    return line


def _print(summary: Selection, place: Path) -> None:
    from rich.table import Table

    out = console()
    out.print(f"\n[bold]{summary.selected:,}[/] of {summary.candidates:,} records selected")
    for reason, number in summary.left.items():
        out.print(f"  {number:>9,}  {reason}")
    if summary.faulty:
        out.print(f"  {summary.faulty:>9,}  rows were no whole record; {summary.faults[0]}")
    if summary.scores:
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        table.add_column("score")
        for name in ("mean", "low", "median", "high", "mean selected", "missing"):
            table.add_column(name, justify="right")
        for name, found in summary.scores.items():
            values = (found.mean, found.low, found.median, found.high, found.mean_selected)
            shown = ["-" if value is None else f"{value:.3g}" for value in values]
            table.add_row(name, *shown, f"{found.missing:,}")
        out.print(table)
    if summary.groups:
        # Topics have commas in their names.
        first = "; ".join(f"{name or '(none)'} {n}" for name, n in list(summary.groups.items())[:8])
        out.print(f"  {len(summary.groups):,} groups: {first}")
    out.print(f"  {place}")
