"""What a rule looks at: one record's texts, folded once however many rules ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.words import normal

Part = Literal["instruction", "input", "output"]
PARTS: tuple[Part, ...] = ("instruction", "input", "output")
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


class View:
    """A record's instruction, input and output, and the same folded for comparing words.

    Folded text is NFKC in lower case, with straight quotes and one space for each run of spaces and
    line breaks.
    """

    def __init__(self, instruction: str, input: str = "", output: str = "") -> None:
        self.instruction = instruction
        self.input = input
        self.output = output

    @classmethod
    def of(cls, item: Candidate | SeedTask) -> View:
        """The view of a candidate or a seed task."""
        return cls(item.instruction, item.input, item.output)

    @cached_property
    def folded(self) -> dict[Part, str]:
        """Each part, folded."""
        return {part: fold(getattr(self, part)) for part in PARTS}

    @cached_property
    def whole(self) -> str:
        """All parts, folded, as one text."""
        return "\n".join(self.folded.values())

    @cached_property
    def task(self) -> str:
        """Instruction and input as one text, as written."""
        return f"{self.instruction}\n{self.input}" if self.input else self.instruction


Rule = Callable[[View], str]
"""What a rule found in a record, in words; "" for nothing. It never raises, whatever the text."""


def fold(text: str) -> str:
    """`text` as the rules compare it; see `View`."""
    return " ".join(normal(text).translate(_QUOTES).lower().split())


def quoted(text: str, limit: int = 60) -> str:
    """A short piece of a record's text for a rule's finding."""
    shown = " ".join(text[: 4 * limit].split())
    return repr(shown if len(shown) <= limit else shown[: limit - 3] + "...")
