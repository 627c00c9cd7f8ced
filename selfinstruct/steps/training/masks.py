"""What of an example is learned, as text that can be shown."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import msgspec

from selfinstruct.steps.training.format import IGNORED, Example

# Special tokens stand apart from the text that could be mistaken for them.
Kind = Literal["prompt", "learned", "special", "learned special"]


class Piece(msgspec.Struct, frozen=True):
    """A stretch of an example's text, `tokens` long."""

    text: str
    kind: Kind
    tokens: int


class Shown(msgspec.Struct, frozen=True):
    """An example as its student meets it."""

    id: str
    pieces: list[Piece]
    length: int
    learned: int


def show(example: Example, tokenizer: Any) -> Shown:
    """`example` as text; tokens in a row of one kind are one piece."""
    special = {*tokenizer.all_special_ids}
    special |= {n for n, token in tokenizer.added_tokens_decoder.items() if token.special}
    labels = [IGNORED] * len(example.prompt) + example.labels
    kinds: list[tuple[int, Kind]] = []
    for token, label in zip(example.prompt + example.answer, labels, strict=True):
        learned = label != IGNORED
        if token in special:
            kinds.append((token, "learned special" if learned else "special"))
        else:
            kinds.append((token, "learned" if learned else "prompt"))
    pieces = []
    for kind, group in itertools.groupby(kinds, key=lambda pair: pair[1]):
        ids = [token for token, _ in group]
        pieces.append(Piece(tokenizer.decode(ids), kind, len(ids)))
    return Shown(example.id, pieces, example.length, example.learned)
