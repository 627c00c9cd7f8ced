"""Money as an integer count of picodollars.

A price of $1 per million tokens is exactly 1,000,000 picodollars per token, so any price with up to
six decimals multiplies exactly, sums never drift, and SQLite's 64-bit integers hold $9.2 million.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

PICO = 10**12


def from_dollars(dollars: Decimal | float | int | str) -> int:
    """`dollars` in picodollars, rounded up. A float is read as the decimal it prints as."""
    exact = dollars if isinstance(dollars, Decimal) else Decimal(str(dollars))
    return int((exact * PICO).to_integral_value(ROUND_CEILING))


def to_dollars(pico: int) -> float:
    """`pico` picodollars as dollars."""
    return pico / PICO


def show(pico: int) -> str:
    """`pico` for people: cents from a cent up, four significant digits below."""
    dollars = pico / PICO
    if pico == 0:
        return "$0.00"
    if abs(dollars) >= 0.01:
        return f"${dollars:,.2f}"
    return f"${dollars:.4g}" if abs(dollars) >= 1e-4 else f"${dollars:.2e}"
