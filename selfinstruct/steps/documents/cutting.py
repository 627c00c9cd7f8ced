"""Cutting a document into passages: along its headings, then paragraphs, lines and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from selfinstruct.steps.documents.blocks import Block
from selfinstruct.steps.words import count_words

# A section of fewer words than this share of a passage is filled up with the next one.
_SMALL = 1 / 3
# What is left at the end goes to the passage before it, where it has fewer words than this.
_REST = 20
# Where to cut what is longer than a passage, in this order.
_CUTS = (
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?\u2026])[\"')\]\u201d\u2019]*\s+|(?<=[\u3002\uff01\uff1f])"),
    re.compile(r"\s+"),
)


class Piece(NamedTuple):
    """A passage: the headings it stands under, its text, and the line or page it begins at."""

    title: str
    text: str
    place: int


def cut(blocks: Iterable[Block], words: int) -> Iterator[Piece]:
    """The pieces of a document, none much longer than `words` words (see `words.count_words`).

    A section begins a new piece, unless the one before it is small: its heading then stands in the
    text. Nothing of the text is left out, and nothing comes twice.
    """
    last: Piece | None = None
    for piece in _pieces(blocks, words):
        if last is not None and count_words(piece.text) < _REST:
            last = last._replace(text=f"{last.text}\n\n{piece.text}")
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _pieces(blocks: Iterable[Block], words: int) -> Iterator[Piece]:
    headings: dict[int, str] = {}
    title, place, size = "", 0, 0
    body: list[str] = []
    for block in blocks:
        if block.level:
            headings = {level: text for level, text in headings.items() if level < block.level}
            headings[block.level] = block.text
        if block.level and size < words * _SMALL:
            if body:
                body.append(block.text)
                size += count_words(block.text)
            continue
        if block.level:
            yield Piece(title, "\n\n".join(body), place)
            body, size = [], 0
            continue
        for part in _parts(block.text, words):
            count = count_words(part)
            if body and size + count > words:
                yield Piece(title, "\n\n".join(body), place)
                body, size = [], 0
            if not body:
                title, place = " > ".join(headings.values()), block.place
            body.append(part)
            size += count
    if body:
        yield Piece(title, "\n\n".join(body), place)


def _parts(text: str, words: int, cuts: tuple[re.Pattern[str], ...] = _CUTS) -> list[str]:
    """`text` in parts of `words` words at most, cut at the best places there are."""
    if count_words(text) <= words:
        return [text]
    if not cuts:  # one word without end
        size = 2 * words  # as `count_words` has it
        return [text[at : at + size] for at in range(0, len(text), size)]
    parts: list[str] = []
    room = 0
    for unit, mark in _units(text, cuts[0]):
        count = count_words(unit)
        if parts and count <= room:
            parts[-1] += mark + unit
            room -= count
            continue
        parts += _parts(unit, words, cuts[1:])
        room = words - count_words(parts[-1])
    return parts


def _units(text: str, where: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """The pieces of `text` between matches of `where`, each with what stood before it."""
    start, mark = 0, ""
    for match in where.finditer(text):
        unit = text[start : match.start()] + match[0].rstrip()
        if unit:
            yield unit, mark
            mark = "\n" if "\n" in match[0] else " " if match[0] else ""
        start = match.end()
    if text[start:]:
        yield text[start:], mark
