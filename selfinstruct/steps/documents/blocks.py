"""What a document is read into: its headings and paragraphs, in order."""

from __future__ import annotations

import re
from typing import NamedTuple

_SPACE = re.compile(r"[ \t\xa0\f\v]+")
_SPACED_LINES = re.compile(r" ?\n ?")


class Block(NamedTuple):
    """A heading (`level` 1 to 6) or a paragraph (`level` 0).

    One without text is a page that is a picture. `place` is the line or page it begins at, counted
    from 1; 0 where neither is known.
    """

    text: str
    level: int = 0
    place: int = 0


def tidy(text: str) -> str:
    """`text` with single spaces, no spaces at the ends of lines, and no empty lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    lines = _SPACED_LINES.sub("\n", _SPACE.sub(" ", text)).split("\n")
    return "\n".join(line for line in lines if line).strip()
