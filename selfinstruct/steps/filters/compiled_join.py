"""The compiled indexes as Python sees them: word lists in, the nearest one added before out.

An index numbers the words, and hands flat arrays of them to a compiled function, which checks, adds
or decides on one text after the other, and stops where the arena must grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from selfinstruct.steps.filters.compiled import META, ROWS, Array, WordIds, grown, new_segments
from selfinstruct.steps.filters.rouge import MAX_WORDS
from selfinstruct.steps.filters.rouge_index import Near

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Given = tuple[Any, ...]

CHECK, ADD, DECIDE = 0, 1, 2  # what to do with each text
RECENT = 1 << 10  # texts that were looked at last, so that none is twice


class Join:
    """Word lists in the order they were added; their first `MAX_WORDS` words count.

    Args:
        each: the compiled function. It is given the arena, `meta`, `scratch` and `given`; the words
            of all texts and where each text ends; what `_beside` makes of the texts; the first text
            to look at and what to do; and arrays for each text's neighbour and score. It returns
            the number of the first text not done.
        given: what this index is set to, as `each` takes it.
        scratch: integers of scratch space.
    """

    def __init__(self, each: Any, given: Given, scratch: int) -> None:
        self._each = each
        self._given = given
        self._segments = new_segments()
        self._meta = np.zeros(META, np.int64)
        self._scratch = np.zeros(scratch, np.int64)
        self._ids = WordIds()
        self._last: tuple[Sequence[str], Ids, Given] | None = None
        self._ends = np.zeros(2, np.int64)
        self._row, self._score = np.zeros(1, np.int64), np.zeros(1, np.float64)

    def __len__(self) -> int:
        return int(self._meta[ROWS])

    @property
    def memory_bytes(self) -> int:
        """What the arena takes so far, the last segment as far as it is used."""
        full = sum(len(segment) for segment in self._segments[: self._meta[0]])
        return 8 * (full + int(self._meta[1]))

    def learn(self, texts: Iterable[Sequence[str]]) -> None:
        """Let the first texts say which words are frequent; adds nothing."""
        self._ids.learn(texts)

    def add(self, words: Sequence[str]) -> None:
        """Remember a word list."""
        self._one(words, ADD)

    def nearest(self, words: Sequence[str]) -> Near | None:
        """The text with the highest score, the earliest of equals; None where none is near."""
        self._one(words, CHECK)
        row = int(self._row[0])
        return None if row < 0 else Near(row, float(self._score[0]))

    def add_all(self, texts: Sequence[Sequence[str]]) -> None:
        """Remember several word lists, without looking for their neighbours."""
        self._several(texts, ADD)

    def decide(self, texts: Sequence[Sequence[str]]) -> tuple[Array, Floats]:
        """Add each text that is near nothing added so far; the nearest and its score else.

        A neighbour is a position in the order of `add`; -1 and 0 for what was added.
        """
        return self._several(texts, DECIDE)

    def _beside(self, texts: Sequence[Sequence[str]]) -> Given:
        """Arrays that `each` takes beside the words."""
        return ()

    def _one(self, words: Sequence[str], what: int) -> None:
        # `add` often follows `nearest` with the same list.
        if self._last is None or self._last[0] is not words:
            ids = np.array([self._ids[word] for word in words[:MAX_WORDS]], np.int32)
            self._last = (words, ids, self._beside([words]))
        _, ids, beside = self._last
        self._ends[1] = len(ids)
        self._run(ids, self._ends, beside, what, self._row, self._score)

    def _several(self, texts: Sequence[Sequence[str]], what: int) -> tuple[Array, Floats]:
        cut = [text[:MAX_WORDS] for text in texts]
        ends = ends_of(cut)
        flat = map(self._ids.__getitem__, chain.from_iterable(cut))
        ids = np.fromiter(flat, np.int32, int(ends[-1]))
        rows, scores = np.full(len(cut), -1, np.int64), np.zeros(len(cut), np.float64)
        self._run(ids, ends, self._beside(cut), what, rows, scores)
        return rows, scores

    def _run(
        self, ids: Ids, ends: Array, beside: Given, what: int, rows: Array, scores: Floats
    ) -> None:
        at = 0
        while True:
            at = self._each(
                self._segments,
                self._meta,
                self._scratch,
                *self._given,
                ids,
                ends,
                *beside,
                at,
                what,
                rows,
                scores,
            )
            if at == len(rows):
                return
            self._segments = grown(self._segments, self._meta)


def ends_of(parts: Sequence[Sequence[object]]) -> Array:
    """Where each part begins and ends once they lie one after the other, 0 in front."""
    ends = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=ends[1:])
    return ends
