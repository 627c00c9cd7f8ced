"""``selfinstruct prices``."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from selfinstruct.cli.common import console, json_option, print_json

if TYPE_CHECKING:
    from selfinstruct.steps.costs.pricing import Rate

COLUMNS = ("input", "cached", "cache_write", "cache_write_1h", "output")
# Characters of a line from which the sources are shown too.
WIDE = 130
# A rate's picodollars per token, as dollars per million tokens.
_PER_MILLION = 10**6


@click.command("prices")
@json_option
def command(as_json: bool) -> None:
    """Show the shipped price table, in dollars per million tokens, with the age of each entry.

    Output includes reasoning. A recipe's own `prices:` go before the table.
    """
    from selfinstruct.steps.costs.pricing import price_warnings, shipped_rates

    today = date.today()
    rates = shipped_rates(today)
    if as_json:
        print_json({name: _as_data(rate, today) for name, rate in rates.items()})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1))
    out = console()
    wide = out.width >= WIDE
    table.add_column("model", no_wrap=True)
    for heading in ("input", "cached", "write 5m", "write 1h", "output", "batch", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    if wide:
        table.add_column("source", no_wrap=True)
    for name, rate in rates.items():
        prices = [_dollars(getattr(rate, column)) for column in COLUMNS]
        row = [name, *prices, f"x{rate.batch:g}", _age(rate, today)]
        table.add_row(*row, *([_source(rate)] if wide else []))
    out.print(table)
    for name, rate in rates.items():
        for warning in price_warnings(name, rate, today):
            click.echo(f"warning: {warning}", err=True)


def _as_data(rate: Rate, today: date) -> dict[str, Any]:
    return {
        **{column: getattr(rate, column) / _PER_MILLION for column in COLUMNS},
        "batch": rate.batch,
        "reasoning": rate.reasoning,
        "checked": str(rate.checked),
        "age_days": (today - rate.checked).days if rate.checked else None,
        "until": str(rate.until) if rate.until else None,
        "source": rate.source,
    }


def _dollars(pico: int) -> str:
    """At least two decimals, and as many more as the price has."""
    text = f"{pico / _PER_MILLION:.6f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def _age(rate: Rate, today: date) -> str:
    return "-" if rate.checked is None else f"{(today - rate.checked).days} d"


def _source(rate: Rate) -> str:
    until = f" (until {rate.until})" if rate.until else ""
    return f"{rate.checked}, {rate.source}{until}"
