"""``selfinstruct evaluate RUN``."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from selfinstruct.cli.common import force_option, json_option, print_json, run_argument, say_aside

LINE_SECONDS = 5.0


@click.command("evaluate")
@run_argument
@force_option
@json_option
def command(run: str, force: bool, as_json: bool) -> None:
    """Measure base and student of the run in folder RUN on its held-out records."""
    from selfinstruct.api import Run
    from selfinstruct.steps.charts.numbers import figure

    opened = Run(run)
    opened.evaluate(force=force, on_progress=None if as_json else evaluation_line(say_aside))
    result = opened.folder.read_json(opened.folder.evaluation / "evaluation.json") or {}
    if as_json:
        print_json(result)
        return
    click.echo(f"held-out records  {result['records']}")
    for measure in ("loss", "perplexity", "rouge_l"):
        before, after = result["before"].get(measure), result["after"].get(measure)
        if before is not None and after is not None:
            # A perplexity may be in the thousands; the others are small.
            shown = figure if measure == "perplexity" else "{:.4f}".format
            click.echo(f"{measure:<18}{shown(before)} -> {shown(after)}")


def evaluation_line(say: Callable[[str], None]) -> Callable[[str, int, int], None]:
    """An `on_progress` that says a line at most every few seconds."""
    last = 0.0

    def line(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            say(f"  {what} {done}/{total}")

    return line
