"""Placeholders: an output with gaps that the reader is to fill."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.code import looks_like_code
from selfinstruct.steps.rules.view import View, quoted

# "[Your Name]", "[company name]": words in square brackets, no link, citation or list.
_GAP = re.compile(
    r"(?<![\w\])!])\[(?!citation)([A-Za-z][A-Za-z'/]*(?: [A-Za-z'/]+){0,5})\](?![(\[:])"
)
_ASKED = re.compile(
    r"\b(?:templates?|forms?|blanks?|placeholders?|fill|letter format|screenplay|script|play|"
    r"dialogue|lyrics|songs?|poems?|flow ?charts?|diagrams?|mad ?libs?|grammar|syntax)\b|\[",
    re.IGNORECASE,
)


def placeholder(view: View) -> str:
    """A gap in square brackets, where no template was asked for and the task has no such gaps."""
    if "[" not in view.output or _ASKED.search(view.task[:4000]) or looks_like_code(view):
        return ""
    found = _GAP.search(view.output)
    return quoted(found[0]) if found else ""
