"""``selfinstruct estimate RECIPE``."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from selfinstruct.cli.common import (
    budget_options,
    console,
    json_option,
    output_option,
    print_json,
    recipe_argument,
    set_option,
    with_budget,
)
from selfinstruct.core.money import show, to_dollars

if TYPE_CHECKING:
    from selfinstruct.api import Run
    from selfinstruct.core.recipe import Recipe
    from selfinstruct.stages.estimate import Case, Estimate


@click.command("estimate")
@recipe_argument
@budget_options
@click.option(
    "--pilot",
    type=click.IntRange(min=1),
    metavar="N",
    help="Really run N slots and extrapolate from them; their records count toward the run.",
)
@click.option("--no-price", is_flag=True, help="Count tokens where no price is known.")
@set_option
@output_option
@json_option
def command(
    recipe: str,
    target: int | None,
    max_cost: str | None,
    pilot: int | None,
    no_price: bool,
    overrides: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    """Say what generating RECIPE will take: low, expected and high, before anything is spent.

    Without --pilot nothing is called: real requests are drawn and counted, and the rest is assumed.
    """
    from selfinstruct.core.recipe_file import load_recipe
    from selfinstruct.stages.estimate import estimate_from_run, estimate_from_seeds
    from selfinstruct.stages.generate import gather_documents, gather_seeds

    settings = with_budget(overrides, target, max_cost)
    settings += ["generate.no_price=true"] if no_price else []
    loaded = load_recipe(recipe, settings)
    loaded.need_teacher()
    if pilot is None:
        seeds, shelf = gather_seeds(loaded), gather_documents(loaded)
        found = estimate_from_seeds(loaded, seeds, date.today(), shelf)
    else:
        run = run_pilot(loaded, pilot, output, as_json)
        found = estimate_from_run(run.folder, loaded, date.today())
    if as_json:
        print_json(as_data(found))
    else:
        print_estimate(found)


def run_pilot(recipe: Recipe, slots: int, output: str | None, as_json: bool) -> Run:
    """Generate until `slots` slots were judged; the run's folder keeps `recipe` as it is.

    The money cap ends a pilot early, and so does a target that is reached.
    """
    from selfinstruct.api import Run
    from selfinstruct.cli.generate import generate_live
    from selfinstruct.cli.needs import check_generating
    from selfinstruct.core.errors import CapReached, NoProgress

    check_generating(recipe)
    limit = min(slots, recipe.generate.max_requests or slots)
    run = Run.from_recipe(recipe, overrides=[f"generate.max_requests={limit}"], output=output)
    try:
        generate_live(run, as_json)
    except (NoProgress, CapReached) as stopped:
        if run.funnel().slots < limit:
            click.echo(f"the pilot ended early: {stopped}", err=True)
    finally:
        with run.folder.lock():
            run.folder.save_recipe(recipe)
    return run


def as_data(found: Estimate) -> dict[str, Any]:
    """An estimate as built-in types, money in dollars."""
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(found)
    data["spent"] = to_dollars(found.spent)
    for name in ("low", "expected", "high"):
        case = getattr(found, name)
        data[name]["cost"] = to_dollars(case.cost)
        data[name]["cost_per_record"] = to_dollars(case.cost_per_record)
    return {**data, "currency": "USD"}


def print_estimate(found: Estimate) -> None:
    """Three tables for people: the cases, the strategies and the prices."""
    from rich.table import Table

    out = console()
    models = ", ".join(dict.fromkeys(price.model for price in found.prices))
    out.print(f"\n[bold]{found.run}[/]  {found.target:,} records from {models}, by {found.basis}")
    cases = Table(box=None, pad_edge=False, padding=(0, 2))
    cases.add_column("")
    for heading in ("low", "expected", "high"):
        cases.add_column(heading, justify="right")
    for label, write in (
        ("dollars", lambda case: show(case.cost)),
        ("  a kept record", lambda case: show(case.cost_per_record)),
        ("requests", lambda case: f"{case.requests:,}"),
        ("tokens in", lambda case: f"{case.tokens_in:,}"),
        ("tokens out", lambda case: f"{case.tokens_out:,}"),
        ("time", _time),
    ):
        cases.add_row(label, *(write(case) for case in (found.low, found.expected, found.high)))
    out.print(cases)
    if found.kept:
        out.print(f"  of it done: {found.kept:,} records kept, {show(found.spent)} spent")
    lines = Table(box=None, pad_edge=False, padding=(0, 2), title="A slot", title_justify="left")
    lines.add_column("strategy")
    for heading in ("share", "calls", "tokens in", "tokens out", "records"):
        lines.add_column(heading, justify="right")
    for line in found.strategies:
        lines.add_row(
            line.name,
            f"{line.share:.0%}",
            f"{line.requests:.1f}",
            f"{line.tokens_in:,.0f}",
            f"{line.tokens_out:,.0f}",
            f"{line.kept:.2f}",
        )
    out.print(lines)
    for price in found.prices:
        checked = f", of {price.checked}" if price.checked else ""
        out.print(
            f"  price of {price.model}: ${price.input:g} in, ${price.output:g} out per million "
            f"tokens ({price.source}{checked})"
        )
    for note in found.notes:
        out.print(f"  {note}", markup=False)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)


def _time(case: Case) -> str:
    if case.seconds is None:
        return "unknown"
    minutes = case.seconds / 60
    if minutes < 1:
        return f"{case.seconds:.0f} s"
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 60 * 48 else f"{minutes / 1440:.1f} days"
