"""Money: picodollars are exact."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.money import PICO, from_dollars, show, to_dollars


@given(st.decimals(min_value=0, max_value=10**6, places=6))
def test_prices_with_six_decimals_are_exact(dollars: Decimal) -> None:
    """A price as published becomes an integer without rounding."""
    assert Decimal(from_dollars(dollars)) / PICO == dollars


def test_a_float_is_read_as_it_prints() -> None:
    """0.1 means one tenth of a dollar, not the binary fraction next to it."""
    assert from_dollars(0.1) == PICO // 10


def test_smaller_parts_round_up() -> None:
    """What cannot be represented is rounded against the spender, so that a cap holds."""
    assert from_dollars(Decimal("1e-13")) == 1


def test_amounts_are_shown_for_people() -> None:
    """Cents from a cent up, significant digits below, and nothing as $0.00."""
    assert show(0) == "$0.00"
    assert show(from_dollars("1234.5")) == "$1,234.50"
    assert show(from_dollars("0.00123456")) == "$0.001235"
    assert show(from_dollars("0.0000012")) == "$1.20e-06"
    assert to_dollars(from_dollars(3)) == 3.0
