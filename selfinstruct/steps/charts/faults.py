"""Faults that rules found: how many of each, what is done about them, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct.core.types import Record
from selfinstruct.steps.charts.markup import paragraph, table, text
from selfinstruct.steps.charts.numbers import count, percent
from selfinstruct.steps.charts.samples import fault_card

EXAMPLES = 10  # of each rule


class Found(NamedTuple):
    """What one rule found: its name, what it looks for, what is done, how often, some of them.

    An example's verdict says in `detail` what was found.
    """

    rule: str
    looks_for: str
    action: str
    number: int
    examples: Sequence[Record]


def faults_section(found: Sequence[Found], looked_at: int) -> str:
    """A table of all rules that are on, the most common fault first, and examples of each."""
    if not found:
        return paragraph("No rule is on: filters.rules and filters.correctness are all off.")
    ranked = sorted(found, key=lambda one: (-one.number, one.rule))
    rows = [
        (
            text(_name(one.rule)),
            text(one.looks_for),
            text(one.action),
            count(one.number),
            percent(one.number, looked_at),
        )
        for one in ranked
    ]
    made = table(
        f"What the rules found in {count(looked_at)} records",
        ("Rule", "It finds that", "Action", "Records", "Share"),
        rows,
        numbers=(3, 4),
    )
    parts = [examples_of(one) for one in ranked if one.examples]
    note = f"Up to {EXAMPLES} examples of each, with what was found." if parts else ""
    return made + (paragraph(note, "note") if note else "") + "".join(parts)


def examples_of(found: Found) -> str:
    """What was found, folded away under its name and number."""
    cards = "".join(map(fault_card, found.examples[:EXAMPLES]))
    return (
        f'<details class="reason"><summary>{text(_name(found.rule))}'
        f"<small>{count(found.number)}</small></summary>"
        f'<div class="records two">{cards}</div></details>'
    )


def _name(rule: str) -> str:
    return rule.replace("_", " ")
