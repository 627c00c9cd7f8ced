"""Merged records: the next task of a numbered reply, swallowed by an output."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.view import View, quoted

# "14. Instruction:", "### Response:", as a line of the output begins.
_LABEL = re.compile(
    r"^[ \t#*>-]{0,8}(?:\d{1,4}[.)][ \t]{0,3})?[ \t*_]{0,4}"
    r"(instruction|input|output|response|question|answer|task)s?[ \t*_]{0,4}:",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBERED = re.compile(
    r"^[ \t#*>-]{0,8}\d{1,4}[.)][ \t]{0,3}(?:instruction|input|output)s?[ \t]{0,3}:",
    re.IGNORECASE | re.MULTILINE,
)
# Alpaca's separator of tasks, alone on its line or before the next number.
_SEPARATOR = re.compile(r"^[ \t]{0,4}#{2,}[ \t]*(?:$|\d{1,4}[.)])", re.MULTILINE)
_ABOUT = re.compile(
    r"\b(?:instructions?|inputs?|prompts?|outputs?|tasks?|datasets?)\b", re.IGNORECASE
)


def merged_record(view: View) -> str:
    """An output that goes on with another task, or holds the labels of one.

    A task about instructions, inputs and outputs may have such labels in its answer.
    """
    numbered = _NUMBERED.search(view.output)
    if numbered:
        return quoted(numbered[0].strip())
    separator = _SEPARATOR.search(view.output)
    if separator and "```" not in view.output and len(separator[0].strip()) < 5:
        rest = view.output[separator.end() :].strip()
        if not rest or _LABEL.search(rest):
            return f"{separator[0].strip()} on a line of its own"
    labels = {match[1].lower() for match in _LABEL.finditer(view.output)}
    if "instruction" in labels and labels & {"output", "response", "input"}:
        return "" if _ABOUT.search(view.task[:4000]) else f"labels: {', '.join(sorted(labels))}"
    return ""
