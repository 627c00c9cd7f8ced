"""Inputs: repeated in the instruction, or asked for and not there."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.view import Rule, View, quoted

_REPEATED = 20  # characters from which on a repeated input is no chance
_MORE = re.compile(r"[:\"\n\u2018\u201c(\[]|[.?!,;-] *\w|(?:^|\s)'|\d")


def input_repeated(view: View) -> str:
    """An input that the instruction has already, word for word."""
    given = view.folded["input"]
    if len(given) >= _REPEATED and given in view.folded["instruction"]:
        return f"{quoted(given)} stands in the instruction too"
    return ""


def missing_input(asks: Rule) -> Rule:
    """A rule for instructions that speak of a text ("the following sentence") which is not there.

    `asks` finds the phrase. Where anything follows that may be the text (a colon, a quote, another
    sentence), there is no finding.
    """

    def look(view: View) -> str:
        if view.input.strip():
            return ""
        found = asks(view)
        instruction = view.instruction.strip()
        if not found or _MORE.search(instruction):
            return ""
        return f"{found}, and no input"

    return look
