"""Stray characters: control characters, escapes and encodings that show through the text."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.code import looks_like_code
from selfinstruct.steps.rules.view import PARTS, View, quoted

# Control characters but tab, line feed and carriage return; a mark of lost bytes; a byte order mark
# inside a text; private use.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufeff\ue000-\uf8ff]")
# UTF-8 that was read as Windows-1252: the lead bytes of quotes, dashes and accented letters.
_MOJIBAKE = re.compile(
    "\u00e2\u20ac[\u2122\u0153\u009d\u201c\u201d\u00a6\u02dc]|\u00c3[\u00a0-\u00bf]|\u00c2[\u00a0-\u00bf]"
)
# Line breaks and quotes written as their escapes, where no code explains them. A letter after them
# makes them TeX (\nu, \times).
_ESCAPE = re.compile(r"(?<![\\\w:])\\(?:[nrt](?![A-Za-z])|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[\"'<>])")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|nbsp|apos|#\d{1,5}|#x[0-9a-fA-F]{1,4});")


def stray_characters(view: View) -> str:
    """Control characters, wrongly decoded text, escapes and entities outside code and markup."""
    for part in PARTS:
        text = getattr(view, part)
        found = _CONTROL.search(text)
        if found:
            return f"U+{ord(found[0]):04X} in the {part}"
        if not text.isascii() and (found := _MOJIBAKE.search(text)):
            return f"wrongly decoded {quoted(found[0])} in the {part}"
        if "\\" in text and (found := _ESCAPE.search(text)) and not looks_like_code(view):
            return f"the escape {found[0]} in the {part}"
        if "&" in text and (found := _ENTITY.search(text)) and not looks_like_code(view):
            return f"the entity {found[0]} in the {part}"
    return ""
