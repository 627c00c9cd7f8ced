"""The report's part on money: the bill, and where the money of the calls went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from selfinstruct.steps.charts.markup import paragraph, table, tag, text
from selfinstruct.steps.charts.numbers import count, dollars, percent, short


class BillEntry(Protocol):
    """One line of the bill (`engine.accounts.BillLine`); `cost` in picodollars."""

    @property
    def stage(self) -> str: ...  # noqa: D102
    @property
    def item(self) -> str: ...  # noqa: D102
    @property
    def quantity(self) -> float: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def cost(self) -> int: ...  # noqa: D102
    @property
    def estimated(self) -> bool: ...  # noqa: D102


class StrategyEntry(Protocol):
    """What a strategy cost (`engine.spending.StrategySpending`); in picodollars."""

    @property
    def strategy(self) -> str: ...  # noqa: D102
    @property
    def candidates(self) -> int: ...  # noqa: D102
    @property
    def kept(self) -> int: ...  # noqa: D102
    @property
    def cost(self) -> int: ...  # noqa: D102
    @property
    def per_kept(self) -> int | None: ...  # noqa: D102


class Spent(Protocol):
    """Where the money of the calls went (`engine.spending.Spending`); in picodollars."""

    @property
    def strategies(self) -> Sequence[StrategyEntry]: ...  # noqa: D102
    @property
    def kept(self) -> int: ...  # noqa: D102
    @property
    def rejected(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def beyond_target(self) -> int: ...  # noqa: D102
    @property
    def rest(self) -> int: ...  # noqa: D102


def money_section(bill: Sequence[BillEntry], kept: int) -> str:
    """The bill: one row a stage and item, what may have been billed standing out."""
    if not bill:
        return paragraph("Nothing was spent yet.")
    grouped: dict[tuple[str, str], list[BillEntry]] = {}
    for line in bill:
        grouped.setdefault((line.stage, line.item), []).append(line)
    rows, loud = [], []
    for n, ((stage, item), lines) in enumerate(grouped.items()):
        used = ", ".join(_used(line) for line in lines if line.quantity)
        unsure = any(line.estimated for line in lines)
        marks = f" {tag('estimated', 'second')}" if unsure else ""
        if item.startswith("possibly billed"):
            loud.append(n)
        cost = dollars(sum(line.cost for line in lines))
        rows.append((text(stage), text(item) + marks, text(used), cost))
    total = sum(line.cost for line in bill)
    foot = [("Total", "", "", dollars(total))]
    if kept:
        foot.append(("Per kept record", "", "", dollars(round(total / kept))))
    made = table("The bill", ("Stage", "Item", "Used", "Cost"), rows, numbers=(3,), foot=foot,
                 marked=loud, kind="bill")  # fmt: skip
    if loud:
        made += paragraph(
            "Possibly billed: calls that ended without an answer, such as those in flight when a "
            "process was stopped. The provider may or may not charge them; they are counted here "
            "at the most they can have cost.",
            "note",
        )
    if not total:
        made += paragraph("No money was spent: nothing on this bill has a price.", "note")
    return made


def _used(line: BillEntry) -> str:
    number = short(line.quantity) if line.quantity >= 100_000 else count(line.quantity)
    one = line.quantity == 1 and line.unit.endswith("s")
    return f"{number} {line.unit.removesuffix('s') if one else line.unit}"


def spending_section(spent: Spent) -> str:
    """What a kept record cost by strategy, and what each verdict took of the money."""
    whole = sum(line.cost for line in spent.strategies)
    if not whole:
        return ""
    made = table(
        "Calls by strategy",
        ("Strategy", "Kept", "Candidates", "Cost", "Per kept record"),
        [
            (
                text(line.strategy),
                count(line.kept),
                count(line.candidates),
                dollars(line.cost),
                "" if line.per_kept is None else dollars(line.per_kept),
            )
            for line in spent.strategies
        ],
        numbers=(1, 2, 3, 4),
    )
    entries = [("kept", spent.kept), *spent.rejected.items()]
    entries += [("beyond the target", spent.beyond_target)] if spent.beyond_target else []
    entries += [("calls without a candidate", spent.rest)] if spent.rest else []
    return made + table(
        "Calls by what became of the candidates",
        ("Verdict", "Cost", "Share"),
        [
            (text(name.replace("_", " ")), dollars(cost), percent(cost, whole))
            for name, cost in entries
        ],
        numbers=(1, 2),
        foot=[("All calls", dollars(whole), "")],
    )
