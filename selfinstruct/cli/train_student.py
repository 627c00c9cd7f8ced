"""``selfinstruct train-student RUN``."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from selfinstruct.cli.common import (
    force_option,
    json_option,
    print_json,
    run_argument,
    set_option,
)

LINE_SECONDS = 5.0


@click.command("train-student")
@run_argument
@set_option
@force_option
@json_option
def command(run: str, overrides: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Fine-tune the student of the run in folder RUN on its dataset.

    Stopped at any moment, the same command continues from the last complete checkpoint.
    """
    from selfinstruct.api import Run

    opened = Run(run)
    opened.configure(*overrides)
    opened.write_dataset()
    summary = opened.train_student(
        force=force, on_progress=None if as_json else training_line(click.echo)
    )
    if as_json:
        print_json(opened.folder.read_json(opened.folder.student / "training.json"))
    else:
        for note in summary.notes:
            click.echo(note)
        click.echo(f"student: {opened.folder.student}")


def training_line(say: Callable[[str], None]) -> Callable[[int, int, float, float], None]:
    """An `on_progress` that says a line at most every few seconds, and for the last step."""
    last = 0.0

    def line(step: int, total: int, loss: float, tokens_per_second: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS or step == total:
            last = now
            say(f"  step {step}/{total}  loss {loss:.3f}  {tokens_per_second:,.0f} tokens/s")

    return line
