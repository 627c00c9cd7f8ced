"""The pool that a filter decides against: a small index at first, a compiled one once it is large.

Both make the same decisions, so when one takes over from the other changes nothing but speed. The
compiled indexes need numba (extra `fast`). Importing it and compiling takes seconds, or half a
second with a warm cache, so that begins in a thread of its own once the pool is worth it, and the
texts move over a few at a time: no single check or addition waits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

from selfinstruct.steps.filters.rouge_index import Near

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Words = Sequence[str]
Kind = Literal["rouge", "jaccard"]

SWITCH = 4096  # texts from which a compiled index is worth its start
MOVED_AT_ONCE = 256  # texts, with each addition: a few milliseconds


class Index(Protocol):
    """Word lists in the order they were added, and the nearest of them to another."""

    def __len__(self) -> int: ...
    def add(self, words: Words) -> None: ...  # noqa: D102
    def nearest(self, words: Words) -> Near | None: ...  # noqa: D102


class Join(Index, Protocol):
    """An `Index` that also takes whole lists."""

    def learn(self, texts: Iterable[Words]) -> None: ...  # noqa: D102
    def add_all(self, texts: Sequence[Words]) -> None: ...  # noqa: D102
    def decide(  # noqa: D102
        self, texts: Sequence[Words]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]: ...


@cache
def compiling(kind: Kind) -> Future[Callable[..., Any]]:
    """A compiled index's class, made ready in a thread of its own; begun once a process."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="compile")
    ready = executor.submit(_compile, kind)
    executor.shutdown(wait=False)
    return ready


def _compile(kind: Kind) -> Callable[..., Any]:
    first = [["compiled", "on", "the", "first", "call"]]
    if kind == "rouge":
        from selfinstruct.steps.filters.compiled_rouge import RougeJoin

        RougeJoin(0.7).decide(first)
        return RougeJoin
    from selfinstruct.steps.filters.compiled_jaccard import GramJoin
    from selfinstruct.steps.filters.jaccard_index import Bander

    GramJoin(0.7, 3, Bander(0.7, 3)).decide(first)
    return GramJoin


@cache
def _usable(ready: Future[Callable[..., Any]]) -> bool:
    """Whether the compiled index was made; said once if not."""
    fault = ready.exception()
    if fault is not None:
        warnings.warn(
            f"filters go on with a slower index, as numba cannot be used: {fault}",
            RuntimeWarning,
            stacklevel=2,
        )
    return fault is None


class IndexPool:
    """Word lists in the order they were added.

    Args:
        small: the index to begin with, empty.
        kind: the compiled index to go on with.
        arguments: those to make that one with.
    """

    def __init__(self, small: Index, kind: Kind, *arguments: object) -> None:
        self._index = small
        self._kind = kind
        self._arguments = arguments
        self._join: Join | None = None  # at work once `_held` is None
        # What the small index holds, for as long as it may have to move. As text, not as lists of
        # words: the garbage collector need not look through it.
        self._held: list[str] | None = [] if find_spec("numba") else None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def compiled(self) -> bool:
        """Whether the compiled index is at work."""
        return self._index is self._join

    def nearest(self, words: Words) -> Near | None:
        """The nearest text that counts as near, the earliest of equals, or None."""
        return self._index.nearest(words)

    def add(self, words: Words) -> None:
        """Remember a word list."""
        self._index.add(words)
        if self._held is not None:
            self._held.append(" ".join(words))
            if len(self._held) >= SWITCH and compiling(self._kind).done():
                self._move(MOVED_AT_ONCE)

    def decide(self, texts: Sequence[Words]) -> list[Near | None]:
        """Add each text that is near nothing before it; the nearest for the others.

        Many texts wait for the compiled index.
        """
        if self._held is not None and len(self._held) + len(texts) >= SWITCH:
            self._move(len(self._held), texts)
        if self._join is not None and self.compiled:
            rows, scores = self._join.decide(texts)
            pairs = zip(rows.tolist(), scores.tolist(), strict=True)
            return [None if row < 0 else Near(row, score) for row, score in pairs]
        found = []
        for words in texts:
            near = self._index.nearest(words)
            if near is None:
                self.add(words)
            found.append(near)
        return found

    def _move(self, count: int, coming: Sequence[Words] = ()) -> None:
        """Move up to `count` texts, and change over once all have moved."""
        ready = compiling(self._kind)
        if self._held is None or not _usable(ready):
            self._held = None
            return
        if self._join is None:
            made: Join = ready.result()(*self._arguments)
            first = [text.split() for text in self._held[:SWITCH]]
            made.learn([*first, *coming[:SWITCH]])
            self._join = made
        moved = len(self._join)
        self._join.add_all([text.split() for text in self._held[moved : moved + count]])
        if len(self._join) == len(self._held):
            self._index, self._held = self._join, None
