"""``selfinstruct batches RUN``."""

from __future__ import annotations

import asyncio

import click

from selfinstruct.cli.common import run_argument


@click.command("batches")
@run_argument
@click.option("--cancel", is_flag=True, help="Ask the provider to end what it is working on.")
@click.option(
    "--forget",
    metavar="TEACHER",
    help="Give up a teacher's open batches, which the provider has deleted; they count as "
    "possibly billed, and their requests are made anew.",
)
def command(run: str, cancel: bool, forget: str | None) -> None:
    """Show what a provider's batch API is still working on for the run in folder RUN.

    `selfinstruct generate` takes open batches up by itself.
    """
    from selfinstruct.api import Run

    opened = Run(run)
    if cancel:
        click.echo(f"{asyncio.run(opened.acancel_batches())} batches asked to end")
    if forget:
        click.echo(f"{asyncio.run(opened.aforget_batches(forget))} batches given up")
    for teacher, items in opened.open_batches().items():
        click.echo(f"{teacher}: {items} requests under way")
