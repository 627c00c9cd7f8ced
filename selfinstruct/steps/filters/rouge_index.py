"""All word lists so far, and the one nearest to a new one by ROUGE-L, exactly and fast.

A pair with m and n words has F1 = 2 lcs / (m + n). Above a threshold t, the words that only one of
both has (as bags) number m + n - 2 overlap <= m + n - 2 lcs < (1 - t)(m + n). A signature has a bit
for each class of words and holds the parity of their count; the bits in which two signatures differ
are a lower bound of that number. numpy compares one signature with all others of like length at
once; the few pairs that pass get their true LCS. Bounds have slack for rounding, so pruning never
changes a decision.

Signatures are 64 bits for short texts and wider for longer ones, kept in one table for each width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

from selfinstruct.steps.filters.rouge import MAX_WORDS, fmeasure

_SLACK = 0.01  # words; far above the rounding of float32 at 10,000 words
_BITS_PER_WORD = 12  # fewer, and signatures of unrelated texts look alike at low thresholds
_MAX_UNITS = 64  # 64-bit units of the widest signature


class Near(NamedTuple):
    """A text above the threshold: its position in the order of `add`, and the F1."""

    position: int
    score: float


class RougeIndex:
    """Word lists in the order they were added.

    Args:
        threshold: F1 above which a text counts as near, 0 < threshold <= 1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._ids: dict[str, int] = {}
        self._texts: list[tuple[int, ...]] = []
        self._tables: dict[int, _Table] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, words: Sequence[str]) -> None:
        """Remember a word list; its first `MAX_WORDS` words count."""
        ids = self._ids
        text = tuple([ids.setdefault(word, len(ids)) for word in words[:MAX_WORDS]])
        units = _units(len(text))
        table = self._tables.get(units)
        if table is None:
            table = self._tables[units] = _Table(units)
        table.add(len(self._texts), text, (1 - self._threshold) * len(text))
        self._texts.append(text)

    def nearest(self, words: Sequence[str]) -> Near | None:
        """The text with the highest F1 above the threshold, the earliest of equals, or None."""
        text = self._known(words[:MAX_WORDS])
        best: Near | None = None
        for position in self._survivors(text):
            score = self._score(text, self._texts[position])
            if score <= self._threshold:
                continue
            if best is None or (score, -position) > (best.score, -best.position):
                best = Near(position, score)
        return best

    def _known(self, words: Sequence[str]) -> tuple[int, ...]:
        """`words` as ids; unknown words get new ids that are not kept."""
        ids = self._ids
        fresh: dict[str, int] = {}
        text = []
        for word in words:
            known = ids.get(word)
            text.append(fresh.setdefault(word, len(ids) + len(fresh)) if known is None else known)
        return tuple(text)

    def _survivors(self, text: tuple[int, ...]) -> Iterator[int]:
        """Positions that the signatures cannot rule out."""
        if not text:
            return
        # min(m, n) >= lcs > t (m + n) / 2 bounds the length of the other text.
        ratio = (2 - self._threshold) / self._threshold
        shortest = math.floor(len(text) / ratio - _SLACK)
        longest = min(math.ceil(len(text) * ratio + _SLACK), MAX_WORDS)
        limit = (1 - self._threshold) * len(text) + _SLACK
        for units, table in self._tables.items():
            if _units(shortest) <= units <= _units(longest):
                yield from table.within(text, limit)

    def _score(self, text: tuple[int, ...], other: tuple[int, ...]) -> float:
        """The pair's F1, or 0 where it is surely not above the threshold."""
        lengths = len(text) + len(other)
        needed = math.ceil(self._threshold * lengths / 2 - _SLACK)
        if min(len(text), len(other)) < needed:
            return 0.0
        lcs = LCSseq.similarity(text, other, score_cutoff=needed)
        return fmeasure(lcs, len(text), len(other))


class _Table:
    """Signatures of one width, one column a text, in arrays that double when full."""

    def __init__(self, units: int) -> None:
        self._bits = 64 * units
        self._count = 0
        self._positions: list[int] = []
        self._signatures: npt.NDArray[np.uint64] = np.zeros((units, 64), np.uint64)
        self._allowances: npt.NDArray[np.float32] = np.zeros(64, np.float32)

    def add(self, position: int, text: Iterable[int], allowance: float) -> None:
        """Remember a text; `allowance` is its share in the number of words that may differ."""
        if self._count == len(self._allowances):
            self._signatures = np.concatenate([self._signatures] * 2, axis=1)
            self._allowances = np.concatenate([self._allowances] * 2)
        self._signatures[:, self._count] = self._signature(text)
        self._allowances[self._count] = allowance
        self._positions.append(position)
        self._count += 1

    def within(self, text: Iterable[int], limit: float) -> list[int]:
        """Positions of the texts that may differ from `text` in less than allowance + limit."""
        signatures = self._signatures[:, : self._count]
        differing = np.bitwise_count(signatures ^ self._signature(text)[:, None])
        bound = differing.sum(axis=0, dtype=np.uint16) if len(differing) > 1 else differing[0]
        near = np.flatnonzero(bound < self._allowances[: self._count] + np.float32(limit))
        return [self._positions[row] for row in near]

    def _signature(self, text: Iterable[int]) -> npt.NDArray[np.uint64]:
        parity = 0
        last = self._bits - 1
        for word in text:
            parity ^= 1 << (word & last)
        return np.frombuffer(parity.to_bytes(self._bits // 8, "little"), "<u8")


def _units(words: int) -> int:
    """64-bit units of the signature of a text of so many words: a power of two."""
    wanted = math.ceil(words * _BITS_PER_WORD / 64)
    return min(1 << max(wanted - 1, 0).bit_length(), _MAX_UNITS)
