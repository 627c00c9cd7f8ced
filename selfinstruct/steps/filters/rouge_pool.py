"""The pool that novelty is decided against: the numpy index while small, then the compiled one.

Both make the same decisions, so when one takes over from the other changes nothing but speed. The
compiled index needs numba (extra `fast`). Importing it and compiling takes seconds, or half a
second with a warm cache, so that begins in a thread of its own once the pool is worth it, and the
texts move over a few at a time: no single check or addition waits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from selfinstruct.steps.filters.rouge_index import Near, RougeIndex

if TYPE_CHECKING:
    from selfinstruct.steps.filters.compiled_rouge import RougeJoin

Words = Sequence[str]

SWITCH = 4096  # texts from which the compiled index is worth its start
MOVED_AT_ONCE = 512  # texts, with each addition: about 3 ms


@cache
def compiling() -> Future[type[RougeJoin]]:
    """The compiled index, made ready in a thread of its own; begun once a process."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="compile")
    ready = executor.submit(_compile)
    executor.shutdown(wait=False)
    return ready


def _compile() -> type[RougeJoin]:
    from selfinstruct.steps.filters.compiled_rouge import RougeJoin

    RougeJoin(0.7).decide([["compiled", "on", "the", "first", "call"]])
    return RougeJoin


@cache
def _usable(ready: Future[type[RougeJoin]]) -> bool:
    """Whether the compiled index was made; said once if not."""
    fault = ready.exception()
    if fault is not None:
        warnings.warn(
            f"novelty goes on with its slower index, as numba cannot be used: {fault}",
            RuntimeWarning,
            stacklevel=2,
        )
    return fault is None


class RougePool:
    """Word lists in the order they were added.

    Args:
        threshold: F1 above which a text counts as near, 0 < threshold <= 1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index: RougeIndex | RougeJoin = RougeIndex(threshold)
        self._next: RougeJoin | None = None
        # What the numpy index holds, for as long as it may have to move.
        self._held: list[Words] | None = [] if find_spec("numba") else None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def compiled(self) -> bool:
        """Whether the compiled index is at work."""
        return not isinstance(self._index, RougeIndex)

    def nearest(self, words: Words) -> Near | None:
        """The text with the highest F1 above the threshold, the earliest of equals, or None."""
        return self._index.nearest(words)

    def add(self, words: Words) -> None:
        """Remember a word list; its first `rouge.MAX_WORDS` words count."""
        self._index.add(words)
        if self._held is not None:
            self._held.append(words)
            if len(self._held) >= SWITCH and (ready := compiling()).done():
                self._move(ready, MOVED_AT_ONCE)

    def decide(self, texts: Sequence[Words]) -> list[Near | None]:
        """Add each text that is near nothing before it; the nearest for the others.

        Many texts wait for the compiled index.
        """
        if self._held is not None and len(self._held) + len(texts) >= SWITCH:
            self._move(compiling(), len(self._held), texts)
        if not isinstance(self._index, RougeIndex):
            rows, scores = self._index.decide(texts)
            pairs = zip(rows.tolist(), scores.tolist(), strict=True)
            return [None if row < 0 else Near(row, score) for row, score in pairs]
        found = []
        for words in texts:
            near = self._index.nearest(words)
            if near is None:
                self.add(words)
            found.append(near)
        return found

    def _move(
        self, ready: Future[type[RougeJoin]], count: int, coming: Sequence[Words] = ()
    ) -> None:
        """Move up to `count` texts, and change over once all have moved."""
        if self._held is None or not _usable(ready):
            self._held = None
            return
        if self._next is None:
            self._next = ready.result()(self._threshold)
            self._next.learn([*self._held[:SWITCH], *coming[:SWITCH]])
        moved = len(self._next)
        self._next.add_all(self._held[moved : moved + count])
        if len(self._next) == len(self._held):
            self._index, self._next, self._held = self._next, None, None
