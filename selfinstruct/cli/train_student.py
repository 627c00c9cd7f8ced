"""``selfinstruct train-student RUN``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfinstruct.cli.common import (
    force_option,
    json_option,
    print_json,
    run_argument,
    set_option,
)

if TYPE_CHECKING:
    from selfinstruct.api import Run


@click.command("train-student")
@run_argument
@set_option
@click.option("--plan", "only_plan", is_flag=True, help="Say what it takes, and train nothing.")
@force_option
@json_option
def command(
    run: str, overrides: tuple[str, ...], only_plan: bool, force: bool, as_json: bool
) -> None:
    """Fine-tune the student of the run in folder RUN on its dataset.

    Stopped at any moment, the same command continues from the last complete checkpoint.
    """
    from selfinstruct.api import Run

    opened = Run(run)
    opened.configure(*overrides)
    opened.write_dataset()
    if only_plan:
        _plan(opened, as_json)
    else:
        _train(opened, force, as_json)


def _plan(run: Run, as_json: bool) -> None:
    plan = run.plan_student()
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(plan), "fits": plan.fits})
        return
    from selfinstruct.cli.training_plan import print_plan

    assert run.recipe.student is not None  # noqa: S101 (without one there is no plan)
    print_plan(plan, run.recipe.student.base)


def _train(run: Run, force: bool, as_json: bool) -> None:
    from selfinstruct.cli.training_panel import training_panel

    if as_json:
        run.train_student(force=force)
        print_json(run.folder.read_json(run.folder.student / "training.json"))
        return
    with training_panel(run.recipe.name, click.echo) as told:
        summary = run.train_student(force=force, on_progress=told)
    for note in summary.notes:
        click.echo(note)
    click.echo(f"student: {run.folder.student}")
