"""What a training leaves in the ledger: that it was worked on, and what it took."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from decimal import Decimal

from selfinstruct.core.money import from_dollars
from selfinstruct.engine.ledger import Ledger

STAGE = "train"


@contextlib.contextmanager
def session(ledger: Ledger) -> Iterator[None]:
    """Note that training was worked on, and whether it came to its end."""
    number, outcome = ledger.begin_session(STAGE), "stopped"
    try:
        yield
        outcome = "done"
    finally:
        ledger.end_session(number, outcome)


def book_hours(ledger: Ledger, item: str, seconds: float, price: Decimal) -> None:
    """Book `seconds` of a machine at `price` dollars an hour."""
    ledger.expense(STAGE, item, seconds / 3600, "hours", hours_cost(seconds, price))


def book_tokens(ledger: Ledger, tokens: int) -> None:
    """Book the tokens that were trained on; they cost nothing by themselves."""
    ledger.expense(STAGE, "tokens trained", tokens, "tokens", 0)


def hours_cost(seconds: float, price: Decimal) -> int:
    """Picodollars of `seconds` at `price` dollars an hour."""
    return from_dollars(price * Decimal(str(seconds)) / 3600)
