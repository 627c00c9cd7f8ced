"""Arithmetic: equations between numbers that an output states, and sums that a task asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from selfinstruct.steps.correctness.asked import asked_value
from selfinstruct.steps.correctness.numbers import NUMBER, Stated, evaluate, stated
from selfinstruct.steps.rules.code import looks_like_code
from selfinstruct.steps.rules.view import View, quoted

MAX_TEXT = 200_000  # characters looked at
_TERM = rf"\(?-?\$?(?:{NUMBER})%?\)?"
_SIGN = r"\s?(?:[-+*/\u00d7\u00f7\u2212]|x(?=[\s\d$]))\s?"
# A sum and what it is said to be. The output of a calculator, <<48/2=24>>, is one too.
_CHAIN = re.compile(rf"({_TERM}(?:{_SIGN}{_TERM}){{1,12}})\s?=\s?(-?\$?(?:{NUMBER})%?)")
_DENIED = re.compile(
    r"\b(?:not|wrong|incorrect\w*|false|error|mistake|instead|should)\b", re.IGNORECASE
)
# What may not stand before a sum or after a result: it would be a part of something longer.
_OPEN_BEFORE = re.compile(
    r"(?:[\w.,:=]|[)\]^/*+\u00d7\u00f7\u2212%\u221a-]\s?|==\s?|\b(?:[\d.]+|of|x|[a-z]|\d and)\s)\Z"
)
_OPEN_AFTER = re.compile(
    r"\s?(?:[-+*/^\u00d7\u00f7(:\u00b0]|x\b|[,.]\d|=|\d)|[\w%]"
    r"|\s(?:R|r|rem|remainder|mod|to the)\b"
)


def wrong_arithmetic(view: View) -> str:
    """A sum in the output with a wrong result, or an answer without the result asked for.

    Exact fractions are compared. A result may be rounded or cut to the digits it has.
    """
    if "=" in view.output and (found := _wrong_chain(view)):
        return found
    asked = asked_value(view)
    if asked is None:
        return ""
    numbers = stated(view.output[:MAX_TEXT])
    if not numbers or any(_equal(number, asked.value, asked.tolerance) for number in numbers):
        return ""
    return f"{quoted(asked.what)} is {_show(asked.value)}"


def _wrong_chain(view: View) -> str:
    for whole, left, right in sums(view.output[:MAX_TEXT]):
        value = evaluate(left)
        said = stated(right.replace(" ", ""))
        if value is None or len(said) != 1 or _ambiguous(left):
            continue
        if not _equal(said[0], value):
            if looks_like_code(view):
                return ""
            return f"{quoted(whole)}, but it is {_show(value)}"
    return ""


def sums(text: str) -> Iterator[tuple[str, str, str]]:
    """The sums in a text that stand alone with a result: whole, sum and result."""
    for match in _CHAIN.finditer(text):
        before = text[max(0, match.start() - 8) : match.start()]
        after = text[match.end() : match.end() + 60]
        if before.endswith("<<") or not (_OPEN_BEFORE.search(before) or _OPEN_AFTER.match(after)):
            around = text[max(0, match.start() - 60) : match.start()] + after
            if not _DENIED.search(around):
                yield match[0], match[1], match[2]


def _ambiguous(left: str) -> bool:
    """A share added to a number, or a range of numbers."""
    shares = left.count("%")
    terms = len(re.findall(NUMBER, left))
    mixed = 0 < shares < terms and bool(re.search(r"[-+\u2212]", left))
    return mixed or bool(re.fullmatch(r"\(?\d+-\d+\)?", left))


def _equal(said: Stated, value: Fraction, tolerance: Fraction = Fraction(0)) -> bool:
    """Whether a stated number is the value, as a number or as a percentage."""
    return any(said.is_near(value * scale, tolerance) for scale in (1, 100, Fraction(1, 100), -1))


def _show(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"
