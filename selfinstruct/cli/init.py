"""``selfinstruct init DIR``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from selfinstruct.core.errors import FolderError
from selfinstruct.core.shipped import FOLDERS, shipped_root


@click.command("init")
@click.argument("directory", type=click.Path(file_okay=False))
def command(directory: str) -> None:
    """Write a starter project into DIRECTORY: seeds/, prompts/, recipes/ and outputs/.

    Files that are there already stay as they are.
    """
    written, kept = start_project(Path(directory))
    click.echo(
        f"{directory}: {written} files written" + (f", {kept} kept as they were" if kept else "")
    )
    click.echo("next: edit seeds/ and a recipe, then: selfinstruct run recipes/quickstart.yaml")


def start_project(directory: Path) -> tuple[int, int]:
    """Copy the shipped folders; returns files written and files left alone."""
    written = kept = 0
    try:
        for name in FOLDERS:
            for source in sorted((shipped_root() / name).rglob("*")):
                if not source.is_file():
                    continue
                goal = directory / source.relative_to(shipped_root())
                if goal.exists():
                    kept += 1
                    continue
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, goal)
                written += 1
        (directory / "outputs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{directory}: cannot write here ({error.strerror})") from None
    return written, kept
