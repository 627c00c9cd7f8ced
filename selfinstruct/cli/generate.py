"""``selfinstruct generate RECIPE``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfinstruct.cli.common import (
    Stopper,
    budget_options,
    json_option,
    output_option,
    recipe_argument,
    set_option,
    with_budget,
)
from selfinstruct.cli.needs import check_generating

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfinstruct.api import Run
    from selfinstruct.engine.judging import Progress


@click.command("generate")
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
    """Grow the seed tasks of RECIPE into judged records, up to its target.

    Stopped by Ctrl-C, kill -9, a power cut or a full disk, the same command continues and ends with
    the same records; no finished call is paid for twice.
    """
    from selfinstruct.api import Run
    from selfinstruct.cli.show import print_status
    from selfinstruct.core.recipe_file import load_recipe

    loaded = load_recipe(recipe, with_budget(overrides, target, max_cost))
    check_generating(loaded)
    run = Run.from_recipe(loaded, output=output)
    generate_live(run, as_json)
    print_status(run, as_json)


def generate_live(run: Run, as_json: bool) -> Progress:
    """Generate with the live panel and a clean Ctrl-C."""
    from selfinstruct.cli.panel import Panel

    panel = Panel(run.recipe.name, as_json)
    stopper = Stopper(panel.say)

    def on_start(progress: Progress, stop: Callable[[], None]) -> None:
        panel.start(progress)
        stopper.arm(stop)

    try:
        return stopper.run(run.agenerate(on_start), private=run.recipe.is_local)
    finally:
        panel.close()
