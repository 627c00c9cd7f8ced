"""``selfinstruct export RUN``."""

from __future__ import annotations

from pathlib import Path

import click

from selfinstruct.cli.common import force_option, run_argument

FORMATS = ("alpaca", "jsonl", "sharegpt", "messages", "csv")


@click.command("export")
@run_argument
@click.option(
    "--format", "fmt", type=click.Choice(FORMATS), help="Write one file in this format instead."
)
@click.option("--to", type=click.Path(dir_okay=False), help="That file [RUN/export.FORMAT].")
@force_option
def command(run: str, fmt: str | None, to: str | None, force: bool) -> None:
    """Write the dataset folder of the run in folder RUN, which `datasets.load_dataset` reads.

    With --format, write its kept records to one file in another format.
    """
    from selfinstruct.api import Run

    opened = Run(run)
    opened.write_dataset(force=force)
    if fmt is None:
        click.echo(str(opened.folder.dataset))
        return
    from selfinstruct.stages.dataset import export

    ending = {"alpaca": "json", "csv": "csv"}.get(fmt, "jsonl")
    out = Path(to) if to else opened.folder.path / f"export.{fmt}.{ending}"
    export(opened.folder, fmt, out)
    click.echo(str(out))
