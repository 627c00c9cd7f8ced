"""Cutting a document into passages: along its headings, then paragraphs, lines and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from selfinstruct.steps.documents.blocks import Block
from selfinstruct.steps.words import count_words

# A section of fewer words than this share of a passage is filled up with the next one.
_SMALL = 1 / 3
# What has fewer words than this, and than a quarter of a passage, is no passage alone.
_REST = 20
# No language has words of so many letters on average: past it, length counts.
_LETTERS = 20
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


class _Open:
    """A piece being filled; `heads`, the headings since the last one, are not in its text."""

    def __init__(self, title: str, place: int, heads: list[str]) -> None:
        self.title, self.place, self.heads = title, place, heads
        self.body: list[str] = []
        self.size = 0

    def add(self, *texts: str) -> None:
        self.body += texts
        self.size += sum(map(_count, texts))

    def closed(self) -> Piece:
        return Piece(self.title, "\n\n".join(self.body), self.place)


def cut(blocks: Iterable[Block], words: int) -> Iterator[Piece]:
    """The pieces of a document, none much longer than `words` words (see `words.count_words`).

    A section begins a new piece, unless the one before it is small: its heading then stands in the
    text. Nothing of the text is left out, and nothing comes twice. A document of some headings and
    nothing else has no text.
    """
    blocks = list(blocks)
    if all(block.level for block in blocks) and sum(_count(b.text) for b in blocks) < _REST:
        return
    last: _Open | None = None
    for piece in _pieces(blocks, words):
        if last is None:
            last = piece
        elif piece.size < _rest(words) and last.size + piece.size <= words + _rest(words):
            last.add(*piece.heads, *piece.body)
        else:
            yield last.closed()
            last = piece
    if last is not None:
        yield last.closed()


def _pieces(blocks: Iterable[Block], words: int) -> Iterator[_Open]:
    piece: _Open | None = None
    for heads, title, block in _paragraphs(blocks):
        for part in _parts(block.text, words):
            if piece is None or _is_full(piece, part, bool(heads), words):
                if piece is not None:
                    yield piece
                piece = _Open(title, block.place, heads)
            else:
                piece.add(*heads)
            piece.add(part)
            heads = []
    if piece is not None:
        yield piece


def _is_full(piece: _Open, part: str, section: bool, words: int) -> bool:
    """Whether `part` begins a new piece; `section` says that a heading stands over it."""
    if section and piece.size >= words * _SMALL:
        return True
    # The few words before a long list belong to it.
    return piece.size >= _rest(words) and piece.size + _count(part) > words


def _paragraphs(blocks: Iterable[Block]) -> Iterator[tuple[list[str], str, Block]]:
    """The paragraphs, each with the headings since the last one and the title it stands under.

    Headings that nothing stands under are a paragraph themselves.
    """
    path: list[Block] = []  # the headings over the text
    new = 0  # how many of them came since the last paragraph
    for block in blocks:
        if block.level:
            kept = sum(one.level < block.level for one in path)
            if bare := path[max(kept, len(path) - new) :]:
                over = path[: len(path) - len(bare)]
                yield _under(over, new - len(bare), _joined(bare))
                new = 0
            path = [one for one in path if one.level < block.level] + [block]
            new += 1
        else:
            yield _under(path, new, block)
            new = 0
    if new:
        yield _under(path[: len(path) - new], 0, _joined(path[len(path) - new :]))


def _under(path: list[Block], new: int, block: Block) -> tuple[list[str], str, Block]:
    texts = [one.text for one in path]
    return texts[len(texts) - new :], " > ".join(texts), block


def _joined(headings: list[Block]) -> Block:
    return Block("\n".join(one.text for one in headings), place=headings[0].place)


def _rest(words: int) -> int:
    return min(_REST, words // 4)


def _count(text: str) -> int:
    """The words of `text`; more where they are no words, such as encoded data."""
    return max(count_words(text), len(text) // _LETTERS)


def _parts(text: str, words: int, cuts: tuple[re.Pattern[str], ...] = _CUTS) -> list[str]:
    """`text` in parts of `words` words at most, cut at the best places there are."""
    if _count(text) <= words:
        return [text]
    if not cuts:  # one word without end
        size = (_LETTERS if text.isascii() else 2) * words  # as they are counted
        return [text[at : at + size] for at in range(0, len(text), size)]
    parts: list[str] = []
    room = 0
    for unit, mark in _units(text, cuts[0]):
        count = _count(unit)
        if parts and count <= room:
            parts[-1] += mark + unit
            room -= count
            continue
        parts += _parts(unit, words, cuts[1:])
        room = words - _count(parts[-1])
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
