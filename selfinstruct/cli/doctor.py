"""``selfinstruct doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfinstruct.cli.common import console, json_option, print_json

if TYPE_CHECKING:
    from selfinstruct.steps.fits import Fit
    from selfinstruct.steps.machine import Machine

GIB = 1 << 30


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Show what is installed, which GPU is here, which keys are set, and what fits.

    Keys are named, never shown, and the network is not touched.
    """
    from selfinstruct.steps.fits import what_fits
    from selfinstruct.steps.machine import inspect_machine

    machine = inspect_machine()
    fits = what_fits(machine)
    if as_json:
        import msgspec

        students = [{**msgspec.to_builtins(fit), "fits": fit.fits} for fit in fits]
        print_json({"machine": machine, "fits": students})
        return
    _show_machine(machine)
    _show_packages(machine)
    _show_fits(fits)


def _show_machine(machine: Machine) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_row("Python", machine.python)
    table.add_row("system", machine.system)
    table.add_row("cores", str(machine.cores))
    table.add_row("memory", f"{_gib(machine.ram)}, {_gib(machine.ram_free)} free")
    table.add_row("disk", f"{_gib(machine.disk_free)} free")
    for gpu in machine.gpus:
        table.add_row("GPU", f"{gpu.name}, {_gib(gpu.memory)}, {_gib(gpu.free)} free")
    if not machine.gpus:
        table.add_row("GPU", "none")
    if machine.idle_gpu:
        table.add_row("", "[yellow]the installed torch cannot use it: install a GPU build[/]")
    table.add_row("keys set", ", ".join(machine.keys) or "none")
    console().print(table)


def _show_packages(machine: Machine) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2), title="Extras", title_justify="left")
    for heading in ("extra", "", "packages"):
        table.add_column(heading)
    extras = sorted({package.extra for package in machine.packages})
    for extra in extras:
        own = [package for package in machine.packages if package.extra == extra]
        whole = all(package.version for package in own)
        names = ", ".join(
            f"{package.name} {package.version}" if package.version else f"[red]{package.name}[/]"
            for package in own
        )
        advice = "" if whole else f"  (pip install 'selfinstruct\\[{extra}]')"
        table.add_row(extra, "[green]yes[/]" if whole else "[red]no[/]", names + advice)
    console().print(table)


def _show_fits(fits: list[Fit]) -> None:
    from rich.table import Table

    for role in ("student", "teacher"):
        title = "Students to train" if role == "student" else "Teachers to serve"
        table = Table(box=None, pad_edge=False, padding=(0, 2), title=title, title_justify="left")
        for heading in ("model", "how", "on"):
            table.add_column(heading)
        table.add_column("needs", justify="right")
        table.add_column("")
        for fit in (one for one in fits if one.role == role and one.offered):
            verdict = "[green]fits[/]" if fit.fits else "[red]too large[/]"
            note = f"  {fit.note}" if fit.note else ""
            table.add_row(fit.model, fit.how, fit.device, _gib(fit.need), verdict + note)
        console().print(table)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
