"""Whether a record has to do with code, where other rules hold."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.view import View

_SIGNS = re.compile(
    r"```|\bdef \w|\bfunction\b|=>|\breturn\b.*[;(]|[;{]\s*$|</\w|<[a-z]\w*[ >]|\bimport \w|"
    r"\bprint ?\(|"
    r"console\.|#include|\bSELECT\b.*\bFROM\b|\b(?:regex|regular expression|escape|latex|json|html|"
    r"xml|css|sql|python|java|javascript|c\+\+|bash|shell|code|string|markdown|unicode)\b|\\(?:[dwsb]|"
    r"begin|frac|left|sqrt|text)|\w\(\)",
    re.IGNORECASE | re.MULTILINE,
)
_LOOKED_AT = 5000


def looks_like_code(view: View) -> bool:
    """Whether instruction, input or output shows code, markup or a language of them."""
    return any(
        _SIGNS.search(text[:_LOOKED_AT]) for text in (view.instruction, view.output, view.input)
    )
