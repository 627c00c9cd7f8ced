"""``selfinstruct run RECIPE``: all stages in a row, skipping what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from selfinstruct.cli.common import (
    budget_options,
    json_option,
    output_option,
    recipe_argument,
    say_aside,
    set_option,
    with_budget,
)
from selfinstruct.cli.needs import check_generating, check_later

if TYPE_CHECKING:
    from selfinstruct.api import Run


@click.command("run")
@recipe_argument
@budget_options
@set_option
@output_option
@json_option
def command(
    recipe: str,
    target: int | None,
    max_cost: str | None,
    overrides: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    """Do all stages of RECIPE: generate, select, dataset, train-student, evaluate, report.

    Selecting is done where the recipe has a section select.

    A stage that is done, with the same settings and input, is skipped. Nothing is published.
    """
    from selfinstruct.api import Run
    from selfinstruct.cli.generate import generate_live
    from selfinstruct.cli.show import as_data, print_status
    from selfinstruct.core.recipe_file import load_recipe

    loaded = load_recipe(recipe, with_budget(overrides, target, max_cost))
    check_generating(loaded)
    check_later(loaded)
    run = Run.from_recipe(loaded, output=output)
    say = _quiet if as_json else say_aside
    if run.recipe.teacher is None:
        say("no teacher: the seeds are the dataset")
    else:
        _stage(say, "generate", lambda: generate_live(run, as_json))
    if run.recipe.teacher is not None and run.recipe.select is not None:
        _stage(say, "select", run.select)
    _stage(say, "dataset", run.write_dataset)
    if run.recipe.student is not None:
        train_and_evaluate(run, say)
    _stage(say, "report", run.report)
    if as_json:
        from selfinstruct.cli.common import print_json

        print_json(as_data(run))
    else:
        print_status(run, as_json)


def train_and_evaluate(run: Run, say: Callable[[str], None]) -> None:
    """The student's two stages."""
    from selfinstruct.cli.evaluate import evaluation_line
    from selfinstruct.cli.training_panel import training_panel

    live = None if say is say_aside else False
    with training_panel(run.recipe.name, say, live=live) as told:
        _stage(say, "train-student", lambda: run.train_student(on_progress=told))
    _stage(say, "evaluate", lambda: run.evaluate(on_progress=evaluation_line(say)))


def _stage(say: Callable[[str], None], name: str, work: Callable[[], Any]) -> None:
    say(f"{name} ...")
    began = time.monotonic()
    work()
    say(f"{name} done in {time.monotonic() - began:.0f} s")


def _quiet(message: str) -> None:
    """With --json, standard output and standard error stay for programs."""
