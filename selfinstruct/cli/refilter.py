"""``selfinstruct refilter RUN``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfinstruct.cli.common import console, json_option, print_json, run_argument, set_option

if TYPE_CHECKING:
    from selfinstruct.stages.refilter import Change, RefilterSummary

SNIPPET = 70


@click.command("refilter")
@run_argument
@set_option
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
def command(run: str, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Judge again what the run in folder RUN has stored, by other filters, and say what changed.

    No call is made and nothing is paid for. A run that is below its target afterwards stays so
    until `generate` is given again. The dataset is written anew by `export`.
    """
    from selfinstruct.api import Run

    summary = Run(run).refilter(*overrides, dry_run=dry_run)
    if as_json:
        print_json(summary)
    else:
        _print(summary, run)


def _print(summary: RefilterSummary, run: str) -> None:
    from rich.table import Table

    out = console()
    before, after = summary.before, summary.after
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    table.add_column("")
    table.add_row(f"{before.candidates:,}", f"{after.candidates:,}", "candidates")
    table.add_row(f"[green]{before.kept:,}[/]", f"[green]{after.kept:,}[/]", "  [green]kept[/]")
    for reason in {**after.rejected, **before.rejected}:
        numbers = (counts.rejected.get(reason, 0) for counts in (before, after))
        table.add_row(*(f"{number:,}" for number in numbers), f"  {reason.replace('_', ' ')}")
    if before.beyond_target or after.beyond_target:
        table.add_row(
            f"{before.beyond_target:,}", f"{after.beyond_target:,}", "  beyond the target"
        )
    out.print(table)
    _print_side("newly kept, by what they were before", summary.newly_kept, summary.examples_kept)
    _print_side("newly rejected", summary.newly_rejected, summary.examples_rejected)
    if not summary.newly_kept and not summary.newly_rejected:
        out.print("No record changed sides.")
    if summary.not_answered:
        out.print(
            f"{summary.not_answered:,} more pass, but their answers were never paid for; "
            "`generate` would."
        )
    if summary.missing:
        out.print(
            f"{after.kept:,} of {summary.target:,} records; `selfinstruct generate` with this "
            "run's recipe buys the rest."
        )
    if summary.dry_run:
        out.print("Nothing was changed: --dry-run.")
    elif summary.newly_kept or summary.newly_rejected:
        out.print(f"The dataset is as it was until: selfinstruct export {run}", markup=False)


def _print_side(title: str, counts: dict[str, int], examples: list[Change]) -> None:
    if not counts:
        return
    out = console()
    out.print(f"\n{sum(counts.values()):,} {title}")
    for reason, number in counts.items():
        out.print(f"{number:>7,}  {reason.replace('_', ' ')}")
        for change in examples:
            if change.reason == reason:
                begins = " ".join(change.instruction.split())[:SNIPPET]
                why = f" ({change.detail})" if change.detail else ""
                out.print(f"         {change.id}  {begins}{why}", markup=False)
