"""Units of measure and how they convert, for checking answers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

# By dimension: what one unit is in the dimension's first one.
_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "m meter meters metre metres": "1", "km kilometer kilometers kilometre kilometres": "1000",
        "cm centimeter centimeters centimetre centimetres": "0.01",
        "mm millimeter millimeters millimetre millimetres": "0.001",
        "mile miles": "1609.344", "yard yards": "0.9144", "foot feet ft": "0.3048",
        "inch inches": "0.0254",
    },
    "mass": {
        "g gram grams": "1", "kg kilogram kilograms": "1000", "mg milligram milligrams": "0.001",
        "lb lbs pound pounds": "453.59237", "ounce ounces oz": "28.349523125",
    },
    "volume": {
        "l liter liters litre litres": "1",
        "ml milliliter milliliters millilitre millilitres": "0.001",
        "gallon gallons": "3.785411784", "quart quarts": "0.946352946", "pint pints": "0.473176473",
        "cup cups": "0.2365882365",
    },
    "time": {
        "second seconds": "1", "minute minutes": "60", "hour hours": "3600", "day days": "86400",
        "week weeks": "604800",
    },
    "temperature": {"celsius": "1", "fahrenheit": "1", "kelvin": "1"},
}  # fmt: skip
_KNOWN = {
    name: (dimension, Fraction(size))
    for dimension, units in _TABLE.items()
    for names, size in units.items()
    for name in names.split()
}
UNITS = sorted(_KNOWN, key=len, reverse=True)


def convert(amount: Fraction, source: str, target: str) -> tuple[Fraction, Fraction] | None:
    """`amount` in `target` units and the share an answer may be off; None where they don't match.

    Between metric and other units answers are rounded in many ways, so that they may be off by 2%.
    """
    dimension, size = _KNOWN[source]
    other, unit = _KNOWN[target]
    if dimension != other or source == target:
        return None
    if dimension == "temperature":
        return _TEMPERATURES[target](_CELSIUS[source](amount)), Fraction(1, 100)
    ratio = size / unit
    exact = ratio.denominator == 1 or Fraction(1, ratio).denominator == 1
    return amount * ratio, Fraction(0) if exact else Fraction(2, 100)


_ZERO = Fraction("273.15")
_CELSIUS: dict[str, Callable[[Fraction], Fraction]] = {
    "celsius": lambda value: value,
    "fahrenheit": lambda value: (value - 32) * 5 / 9,
    "kelvin": lambda value: value - _ZERO,
}
_TEMPERATURES: dict[str, Callable[[Fraction], Fraction]] = {
    "celsius": lambda value: value,
    "fahrenheit": lambda value: value * 9 / 5 + 32,
    "kelvin": lambda value: value + _ZERO,
}
