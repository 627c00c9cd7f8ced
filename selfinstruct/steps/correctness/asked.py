"""What a task asks to be computed, where it can be told from its words: one exact number.

The words are English. A task in other words, or with more than one number to find, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from selfinstruct.steps.correctness.numbers import NUMBER, evaluate
from selfinstruct.steps.correctness.units import UNITS, convert
from selfinstruct.steps.rules.view import View

MAX_TASK = 400  # characters; longer ones are stories

_N = rf"(-?\$?(?:{NUMBER})%?)"


class Asked(NamedTuple):
    """The value asked for, the words that ask for it, and what share of it an answer may be off."""

    value: Fraction
    what: str
    tolerance: Fraction = Fraction(0)


_COMMAND = re.compile(
    r"\b(?:calculate|compute|evaluate|solve|what is|what's|what are|find|determine|work out|"
    r"simplify|add|subtract|multiply|divide|sum|total|result|answer|perform)\b",
    re.IGNORECASE,
)
# Tasks about sums that are not asked for their result.
_OTHER = re.compile(
    r"\b(?:write|create|generate|construct|design|code|program|function|script|python|java|sql|excel|"
    r"equation|expression|word problem|explain|describe|rewrite|round(?:ed)?|nearest|estimate|"
    r"remainder|modulo|modulus|binary|hex\w*|base|factors?|prime|highest|lowest|second|digits?|log\w*|rearrange|formula|"
    r"subsequence|subarray|adjacent|weighted|derivative|integral|sequence|series|next|missing|correct|incorrect|verify|check|whether|if|"
    r"true|false|classify|input|command|statement|edit|units?|fraction|decimal|steps?)\b",
    re.IGNORECASE,
)
_SUM = re.compile(
    rf"(?<![\w.,/^*+=()-])(?<![\d)] )\(*-?\$?(?:{NUMBER})%?\)*"
    rf"(?:\s?(?:[-+*/^\u00d7\u00f7\u2212]|x(?=[\s\d(]))\s?\(*-?\$?(?:{NUMBER})%?\)*){{1,12}}"
    rf"(?![\w^/*+(\[]|\s?[-+*/^=x\u00d7\u00f7(]\s?[\w(]|\.\d|,\d)"
)


def _divided(a: Fraction, b: Fraction) -> Fraction | None:
    return a / b if b else None


_PHRASES: list[tuple[re.Pattern[str], Callable[[Fraction, Fraction], Fraction | None]]] = [
    (re.compile(pattern, re.IGNORECASE), function)
    for pattern, function in (
        (rf"\b(?:multiply|product of) {_N} (?:by|and|with|times) {_N}", lambda a, b: a * b),
        (rf"\bdivide {_N} by {_N}", _divided),
        (rf"\b(?:add|sum of) {_N} (?:and|to|with|plus) {_N}", lambda a, b: a + b),
        (rf"\bsubtract {_N} from {_N}", lambda a, b: b - a),
        (rf"\bdifference between {_N} and {_N}", lambda a, b: abs(a - b)),
        (rf"{_N} (?:multiplied by|times) {_N}", lambda a, b: a * b),
        (rf"{_N} divided by {_N}", _divided),
        (rf"{_N} plus {_N}", lambda a, b: a + b),
        (rf"{_N} minus {_N}", lambda a, b: a - b),
        (rf"{_N}(?: percent| ?%) of {_N}", lambda a, b: a * b / 100),
    )
]
_LIST_FUNCTIONS: dict[str, Callable[[list[Fraction]], Fraction | None]] = {
    "mean": lambda numbers: sum(numbers, Fraction(0)) / len(numbers),
    "average": lambda numbers: sum(numbers, Fraction(0)) / len(numbers),
    "median": lambda numbers: _median(sorted(numbers)),
    "sum": lambda numbers: sum(numbers, Fraction(0)),
}
_LIST_WORD = re.compile(rf"\b({'|'.join(_LIST_FUNCTIONS)})\b", re.IGNORECASE)
_LIST = re.compile(
    rf"(?<![\w.,-])[\[({{]?\s*({_N}(?:\s*,\s*(?:and )?{_N}){{2,60}})\s*[\])}}]?\.?(?!\w|,|\s*and\b)"
)


def asked_value(view: View) -> Asked | None:
    """The one number that a task asks for, or None where that is not plain."""
    text = f"{view.instruction} {view.input}".strip()
    if len(text) > MAX_TASK or not any(map(str.isdigit, text)) or _OTHER.search(text):
        return None
    found = _list_function(text) or conversion(text) or _phrase(text)
    return found or _expression(text)


_CONVERSION = re.compile(
    rf"\b(?:convert|change|express|how many|what is)\b.{{0,40}}?{_N} ?({'|'.join(UNITS)})\b\.?"
    rf"(?: \w+){{0,2}}? (?:to|into|in|as) (?:\w+ )?({'|'.join(UNITS)})\b",
    re.IGNORECASE,
)


def conversion(text: str) -> Asked | None:
    """A measure in another unit, such as "Convert 25 m to km."."""
    match = _CONVERSION.search(text)
    if match is None or re.search(r"\d", text.replace(match[1], "", 1)):
        return None
    amount = _plain(match[1])
    found = None if amount is None else convert(amount, match[2].lower(), match[3].lower())
    return None if found is None else Asked(found[0], match[0], found[1])


def _expression(text: str) -> Asked | None:
    """The only sum in a task, such as "Calculate 14 + 6."."""
    if not _COMMAND.search(text):
        return None
    found = _SUM.findall(text)
    if len(found) != 1 or "=" in text:
        return None
    # No other number may be about: it would be a part of the question.
    if re.search(r"\d", text.replace(found[0], "", 1)):
        return None
    value = evaluate(found[0])
    if value is None or "10^" in found[0] or re.fullmatch(r"\d+(?:[-/]\d+)+", found[0].strip()):
        return None
    return Asked(value, found[0].strip())


def _phrase(text: str) -> Asked | None:
    for pattern, function in _PHRASES:
        match = pattern.search(text)
        if match is None:
            continue
        first, second = (_plain(group) for group in match.groups())
        if re.search(r"\d", text.replace(match[0], "", 1)) or first is None or second is None:
            return None
        value = function(first, second)
        return None if value is None else Asked(value, match[0])
    return None


def _plain(text: str) -> Fraction | None:
    return evaluate(text.rstrip("%"))


def _list_function(text: str) -> Asked | None:
    """Mean, median, sum and the like of one list of numbers."""
    words = {word.lower() for word in _LIST_WORD.findall(text)}
    lists = list(_LIST.finditer(text))
    if len(words) != 1 or len(lists) != 1:
        return None
    whole = lists[0][1]
    one = re.fullmatch(r"\$?\d{1,3}(?:,\d{3})+", whole.strip())
    if one or "%" in whole or re.search(r"\d", text.replace(whole, "", 1)):
        return None
    numbers = [evaluate(part.replace("and ", "").strip()) for part in re.split(r"\s*,\s*", whole)]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(known) < 3:
        return None
    word = words.pop()
    value = _LIST_FUNCTIONS[word](known)
    return None if value is None else Asked(value, f"{word} of {whole}")


def _median(numbers: list[Fraction]) -> Fraction:
    middle = len(numbers) // 2
    if len(numbers) % 2:
        return numbers[middle]
    return (numbers[middle - 1] + numbers[middle]) / 2
