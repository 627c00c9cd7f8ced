"""``selfinstruct report RUN``."""

from __future__ import annotations

import click

from selfinstruct.cli.common import run_argument


@click.command("report")
@run_argument
def command(run: str) -> None:
    """Write the report of the run in folder RUN: one HTML file that needs no network."""
    from selfinstruct.api import Run

    click.echo(str(Run(run).report()))
