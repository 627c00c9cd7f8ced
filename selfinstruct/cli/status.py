"""``selfinstruct status RUN``."""

from __future__ import annotations

import click

from selfinstruct.cli.common import json_option, run_argument


@click.command("status")
@run_argument
@json_option
def command(run: str, as_json: bool) -> None:
    """Show the run in folder RUN: what came in, what was kept, why the rest was not, the bill."""
    from selfinstruct.api import Run
    from selfinstruct.cli.show import print_status

    print_status(Run(run), as_json)
