"""Embeddings that are kept: the same vectors, each made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.steps.embedding.kept import Kept

Int8 = npt.NDArray[np.int8]


class Counting:
    """An embedder of three dimensions that remembers what it was asked."""

    name = "counting"

    def __init__(self, identity: str = "one") -> None:
        self.identity = identity
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Int8:
        self.asked += texts
        rows = [[len(text) % 100, sum(map(ord, text)) % 100, -7] for text in texts]
        return np.array(rows, np.int8).reshape(-1, 3)


class Shelf(dict[bytes, bytes]):
    """A book in memory."""

    def put(self, key: bytes, bands: bytes) -> None:
        self[key] = bands


TEXTS = st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=6)


@given(TEXTS, TEXTS)
def test_vectors_are_those_of_the_embedder(first: list[str], second: list[str]) -> None:
    """Whatever was asked before, in the order asked for; no text is embedded in two calls."""
    inner = Counting()
    kept = Kept(inner, Shelf())
    for texts in (first, second, first):
        assert (kept.embed(texts) == Counting().embed(texts)).all()
    assert len(inner.asked) <= len(first) + len(set(second) - set(first)) * len(second)
    assert not set(inner.asked[len(first) :]) & set(first)


def test_another_model_makes_its_own() -> None:
    """What one model made is not taken for another's."""
    shelf, other = Shelf(), Counting("two")
    Kept(Counting(), shelf).embed(["a river"])
    Kept(other, shelf).embed(["a river"])
    assert other.asked == ["a river"]
