"""Equations in one unknown: the solution an output gives must solve the task's equation."""

from __future__ import annotations

import re
from fractions import Fraction

from selfinstruct.steps.correctness.numbers import evaluate
from selfinstruct.steps.rules.view import View, quoted

MAX_TASK = 400
_COMMAND = re.compile(
    r"\b(?:solve|solution|find|calculate|compute|determine|evaluate|what)\b", re.IGNORECASE
)
# What a side is made of: numbers, letters that are no words, signs and brackets.
_TOKENS = (
    r"(?:(?<![a-z])[a-z](?![a-z])|\d+(?:\.\d+)?|[-+*/^()\u00b2\u00b3\u2013\u2212\u00d7\u00f7]|[ ])"
)
_LEFT = re.compile(rf"{_TOKENS}{{1,80}}$")
_RIGHT = re.compile(rf"{_TOKENS}{{1,80}}")
_POWERS = str.maketrans({"\u00b2": "^2", "\u00b3": "^3", "\u2013": "-", "\u2212": "-"})
_VARIABLE = re.compile(r"(?<![a-z])([a-z])(?![a-z])")


def wrong_solution(view: View) -> str:
    """A last "x = ..." in the output that does not solve the only equation of the task."""
    task = f"{view.instruction}\n{view.input}"
    if len(task) > MAX_TASK or not _COMMAND.search(task):
        return ""
    if task.count("=") != 1:
        return ""
    at = task.index("=")
    begin, end = _LEFT.search(task[max(0, at - 80) : at]), _RIGHT.match(task, at + 1)
    if begin is None or end is None:
        return ""
    left, right = begin[0].strip(), end[0].strip()
    name = _unknown(left, right)
    if not name or re.search(r"[a-z)] ?\d", f"{left}={right}"):  # x2: a square, or a product?
        return ""
    solutions = _solutions(view.output[:5000], name)
    if not solutions:
        return ""
    wrong = [value for value in solutions[-1:] if _holds(left, right, name, value) is False]
    if not wrong:
        return ""
    return f"{name} = {_show(wrong[0])} does not solve {quoted(f'{left} = {right}')}"


def _unknown(left: str, right: str) -> str:
    """The only letter of an equation, its unknown; "" where there is none or several."""
    names = set(_VARIABLE.findall(left + " " + right))
    return names.pop() if len(names) == 1 else ""


def _solutions(output: str, name: str) -> list[Fraction]:
    """The numbers that stand alone after "x =", in their order."""
    pattern = (
        rf"(?<![\w.)^*/+-])(?<![-+*/\u00d7] ){name}\s?=\s?"
        r"(-?\s?(?:\d+(?:\.\d+)?)(?:\s?/\s?\d+)?)(?![\w(^*]|\s?[-+*/\u00d7\u00f7=]|\.\d)"
    )
    values = [evaluate(text) for text in re.findall(pattern, output)]
    return [value for value in values if value is not None]


def _holds(left: str, right: str, name: str, value: Fraction) -> bool | None:
    """Whether both sides agree, within the rounding of a decimal; None where it cannot be told."""
    sides = [evaluate(_explicit(side), {name: value}) for side in (left, right)]
    if sides[0] is None or sides[1] is None:
        return None
    scale = max(Fraction(1), abs(sides[0]), abs(sides[1]))
    rounded = value.denominator != 1
    return abs(sides[0] - sides[1]) <= (scale * Fraction(2, 100) if rounded else 0)


def _explicit(side: str) -> str:
    """A side with its products written out: 2x, 3(x + 1), )(."""
    side = re.sub(r"(?<=[\d)])\s?(?=[a-z(])", "*", side.translate(_POWERS).strip())
    return re.sub(r"(?<=[a-z)])(?=[\d(])", "*", side)


def _show(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"
