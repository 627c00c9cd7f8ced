"""Exact arithmetic on what a text says: expressions, and numbers as people write them."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MAX_EXPRESSION = 200  # characters
_MAX_POWER = 64
_MAX_DIGITS = 40
_FLOAT = Fraction(1, 10**9)  # what floats print past that is noise

# 1,234.5 or 1234.5 or .5
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SIGNS = str.maketrans(
    {
        "\u00d7": "*",
        "\u00b7": "*",
        "\u22c5": "*",
        "\u00f7": "/",
        "\u2212": "-",
        "\u2013": "-",
        "^": "@",
        "$": " ",
        "\u20ac": " ",
        "\u00a3": " ",
    }
)


def evaluate(text: str, variables: Mapping[str, Fraction] | None = None) -> Fraction | None:
    """The value of an expression of numbers, + - * / ^ and brackets; None where it is none.

    Also ``3 x 4`` for a product, ``20%`` for a fifth and commas between thousands. Nothing is
    executed: the syntax tree is walked, and only those nodes count.
    """
    if len(text) > MAX_EXPRESSION or re.search(rf"\d{{{_MAX_DIGITS},}}", text):
        return None
    plain = text.translate(_SIGNS).replace("**", "@")
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(?<=[\d)]) ?[xX] ?(?=[\d(.])", "*", plain) if not variables else plain
    plain = re.sub(r"((?:\d+\.?\d*|\.\d+))%", r"(\1/100)", plain)
    plain = re.sub(r"(?<![\w.])0+(?=\d)", "", plain)
    try:
        tree = ast.parse(plain.replace("@", "**").strip(), mode="eval")
        return _value(tree.body, variables or {})
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError, OverflowError):
        return None


def _value(node: ast.expr, variables: Mapping[str, Fraction]) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return Fraction(str(value))
        case ast.Name(id=name) if name in variables:
            return variables[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, variables)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner, variables)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            power = _value(right, variables)
            if power.denominator != 1 or abs(power) > _MAX_POWER:
                raise ValueError("a power that is no small integer")
            return Fraction(_value(left, variables) ** int(power))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, variables), _value(right, variables))
    raise ValueError("no arithmetic")


_MAGNITUDES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
]  # fmt: skip
_STATED = re.compile(
    rf"(?<![\w.,])(-? ?\$?)({NUMBER})(?:\s?/\s?(\d+))?"
    rf"(?:\s({'|'.join(_MAGNITUDES)})\b)?|\b({'|'.join(_WORDS)})\b",
    re.IGNORECASE,
)


class Stated:
    """A number as a text states it: its value, and how far off it may be by rounding."""

    def __init__(self, value: Fraction, slack: Fraction) -> None:
        self.value = value
        self.slack = slack

    def is_near(self, value: Fraction, tolerance: Fraction = Fraction(0)) -> bool:
        """Whether this is `value`, rounded or cut to the digits it has, or off by a share of it."""
        off = abs(self.value - value)
        return off < self.slack or off <= abs(value) * max(tolerance, _FLOAT)


def stated(text: str, limit: int = 200) -> list[Stated]:
    """The first `limit` numbers of a text, those in words up to twenty too."""
    found = []
    for match in _STATED.finditer(text):
        sign, digits, below, magnitude, word = match.groups()
        if word:
            found.append(Stated(Fraction(_WORDS.index(word.lower())), Fraction(0)))
            continue
        if len(digits) > _MAX_DIGITS or (below and int(below[:_MAX_DIGITS]) == 0):
            continue
        times = _MAGNITUDES.get((magnitude or "").lower(), 1)
        value = Fraction(digits.replace(",", "")) * times
        if below:
            value /= int(below[:_MAX_DIGITS])
        if "-" in (sign or ""):
            value = -value
        found.append(Stated(value, _slack(digits) * times))
        if len(found) == limit:
            break
    return found


def _slack(digits: str) -> Fraction:
    """How far a number may be from the exact one: less than one unit of its last decimal."""
    decimals = len(digits.partition(".")[2])
    return Fraction(1, 10**decimals)
