"""Numbers as people read them."""

from __future__ import annotations

from math import floor, log10

from selfinstruct.core.money import PICO, show


def dollars(pico: int) -> str:
    """Picodollars for people: cents from a cent up, two significant digits below, no exponents."""
    if pico == 0 or abs(pico) >= PICO // 100:
        return show(pico)
    if abs(pico) < PICO // 10**7:
        return "< $0.0000001"
    value = pico / PICO
    digits = 1 - floor(log10(abs(value)))
    return f"${value:.{digits}f}"


def count(value: float) -> str:
    """12345 as "12,345"; two decimals at most where it is not whole, more of a number below 0.1."""
    if value == int(value):
        return f"{int(value):,}"
    decimals = 2 if abs(value) >= 0.1 else min(12, 1 - floor(log10(abs(value))))
    return f"{value:,.{decimals}f}".rstrip("0").rstrip(".")


def short(value: float) -> str:
    """12345 as "12.3k", for where there is little room."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return count(value)


def percent(part: float, whole: float) -> str:
    """`part` of `whole` in percent: one decimal, "< 0.1%" for what would round to nothing."""
    if not whole:
        return "n/a"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1%"
    if 99.9 < share < 100:
        return "> 99.9%"
    return f"{share:.1f}%"


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: "48 s", "12 min 5 s", "3 h 12 min", "2 d 4 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, next_size, next_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def figure(value: float) -> str:
    """A measured number with three or four significant digits, never in exponents."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.1f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
