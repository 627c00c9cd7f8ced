"""An embedder that makes no vector twice: what it has made is kept, by the text and the model."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfinstruct.core.types import Book
    from selfinstruct.steps.embedding.vectors import Embedder, Int8


class Kept:
    """`embedder` beside a `book`; the same vectors with it and without."""

    def __init__(self, embedder: Embedder, book: Book) -> None:
        self._embedder = embedder
        self._book = book
        self.name = embedder.name
        self.identity = embedder.identity

    def embed(self, texts: Sequence[str]) -> Int8:
        """One row a text."""
        import numpy as np

        keys = [self._key(text) for text in texts]
        known = [self._book.get(key) for key in keys]
        fresh = [at for at, row in enumerate(known) if row is None]
        made = self._embedder.embed([texts[at] for at in fresh]) if fresh else None
        rows = [np.frombuffer(row, np.int8) if row is not None else None for row in known]
        for place, at in enumerate(fresh):
            assert made is not None  # noqa: S101 (there is something fresh)
            rows[at] = made[place]
            self._book.put(keys[at], made[place].tobytes())
        found: Int8 = np.array(rows, np.int8)
        return found

    def _key(self, text: str) -> bytes:
        said = f"vector {self.identity} {text}".encode("utf-8", "surrogatepass")
        return blake2b(said, digest_size=16).digest()
