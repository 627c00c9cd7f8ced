"""``selfinstruct publish RUN``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from selfinstruct.cli.common import console, json_option, print_json, run_argument, set_option

if TYPE_CHECKING:
    from selfinstruct.stages.publish import PublishPlan
    from selfinstruct.steps.publishing.parcel import Parcel

FINDINGS_SHOWN = 20


@click.command("publish")
@run_argument
@click.option("--dry-run", is_flag=True, help="Only show what would go where; contact nobody.")
@click.option("--dataset", "only", flag_value="dataset", help="Only the dataset.")
@click.option("--student", "only", flag_value="student", help="Only the student.")
@click.option("--public/--private", default=None, help="Go before publish.private of the recipe.")
@click.option("--allow-findings", is_flag=True, help="Publish although the scan found something.")
@click.option("--include-rejected", is_flag=True, help="Also publish the rejected candidates.")
@set_option
@json_option
def command(
    run: str,
    dry_run: bool,
    only: Literal["dataset", "student"] | None,
    public: bool | None,
    allow_findings: bool,
    include_rejected: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Publish dataset and student of the run in folder RUN in the Hub's format.

    Repositories are private unless told otherwise, and what a scan for secrets and personal data
    finds stops the upload. Look at it first with --dry-run.
    """
    from selfinstruct.api import Run

    opened = Run(run)
    opened.configure(*overrides)
    options = {
        "what": (only,) if only else ("dataset", "student"),
        "public": public,
        "include_rejected": include_rejected,
    }
    if dry_run:
        plan = opened.plan_publish(**options)
        print_json(plan) if as_json else _show(plan)
        return

    def say(line: str) -> None:
        click.echo(line, err=True)

    done = opened.publish(allow_findings=allow_findings, on_progress=say, **options)
    if as_json:
        print_json(done)
        return
    for one in done:
        state = "private" if one.private else "public"
        click.echo(
            f"{one.url} ({state}): {len(one.uploaded)} files uploaded, {len(one.deleted)} deleted, "
            f"{one.unchanged} unchanged"
        )


def _show(plan: PublishPlan) -> None:
    """The plan for people."""
    out = console()
    out.print(f"to {plan.endpoint}, with the token in {plan.token_env}")
    for parcel in plan.repos:
        _show_parcel(parcel)
    for line in plan.missing:
        out.print(f"[yellow]first:[/] {line}")
    click.echo("nothing was sent")


def _show_parcel(parcel: Parcel) -> None:
    from rich.table import Table

    out = console()
    state = "private" if parcel.private else "[bold]public[/]"
    name = parcel.repo_id or "(no repository named)"
    out.print(f"\n[bold]{parcel.what}[/] -> {name}, {state}, {parcel.size:,} bytes")
    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for file in parcel.files:
        table.add_row(file.path, f"{file.size:,}", file.sha256[:12])
    out.print(table)
    for line in (*parcel.left_out, *parcel.notes):
        out.print(f"  {line}")
    if parcel.unscanned:
        out.print(f"  not scanned, as they hold no text: {', '.join(parcel.unscanned)}")
    for line in parcel.refusals:
        out.print(f"  [red]refused:[/] {line}")
    for finding in parcel.findings[:FINDINGS_SHOWN]:
        place = f"{finding.file} {finding.record} {finding.field}"
        out.print(f"  [red]found:[/] {finding.kind} in {place}: {finding.masked}", markup=True)
    if len(parcel.findings) > FINDINGS_SHOWN:
        out.print(f"  ... and {len(parcel.findings) - FINDINGS_SHOWN} more findings")
