"""Semantic duplicates: reject what means the same as a seed or a kept record, in other words.

Instruction and input are embedded as one text. An HNSW graph (Malkov and Yashunin 2016) in usearch
finds the neighbours to look at, and each is then measured exactly, so a reject is never an
estimate; what the graph does not find is missed. It is built by one thread in the order of the
records, so the same records give the same graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfinstruct.core.errors import MissingDependency
from selfinstruct.core.types import Book, Candidate, SeedTask, Verdict, task_text
from selfinstruct.steps.embedding.build import build_embedder
from selfinstruct.steps.embedding.kept import Kept
from selfinstruct.steps.embedding.minilm import NAME, PURPOSE
from selfinstruct.steps.embedding.vectors import cosine
from selfinstruct.steps.filters.rouge import show
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.words import unicode_words

if TYPE_CHECKING:
    from selfinstruct.steps.embedding.vectors import Embedder, Int8

SEMANTIC_DUPLICATE = "semantic_duplicate"
REASONS = {SEMANTIC_DUPLICATE: "it asks for the same as a seed or a kept record in other words"}

CANDIDATES = 8  # neighbours that are measured
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 64


class Semantic:
    """Rejects a candidate whose embedding has a cosine of `threshold` or more with one added.

    A text without words is near nothing.

    Args:
        threshold: 0 < threshold <= 1.
        model: "minilm", a sentence-transformers folder, or a Hub id that is in the cache here; the
            Hub is not asked.
        book: keeps vectors, so that a run that continues does not make them again.

    Raises `MissingDependency` without the extra `semantic`, `UserError` for another model.
    """

    name = "semantic"

    def __init__(self, threshold: float = 0.9, model: str = NAME, book: Book | None = None) -> None:
        try:
            from usearch.index import Index
        except ImportError as error:
            raise MissingDependency(error.name or "usearch", "semantic", PURPOSE) from None
        self._threshold = threshold
        offline = Policy(local=True)
        embedder = build_embedder(model, offline, "filters.semantic.model")
        self._embedder: Embedder = embedder if book is None else Kept(embedder, book)
        self._make = Index
        self._index: Any = None
        self._vectors: list[Int8] = []
        self._item_ids: list[str] = []
        self._last: tuple[str, Int8] | None = None

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the nearest neighbour found, the earliest of equals."""
        text = task_text(candidate)
        if not self._vectors or not unicode_words(text):
            return None
        vector = self._embedded(text)
        found = self._index.search(vector, CANDIDATES, threads=1)
        score, at = max((cosine(vector, self._vectors[int(n)]), -int(n)) for n in found.keys)
        if score < self._threshold:
            return None
        neighbour = self._item_ids[-at]
        return Verdict(
            candidate_id=candidate.id,
            reason=SEMANTIC_DUPLICATE,
            detail=f"cosine {show(score, self._threshold)} with {neighbour}, "
            f"from {self._threshold:g} up",
            neighbour=neighbour,
            score=score,
        )

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate."""
        text = task_text(item)
        if not unicode_words(text):
            return
        vector = self._embedded(text)
        if self._index is None:
            self._index = self._make(
                ndim=len(vector),
                metric="cos",
                dtype="i8",
                connectivity=CONNECTIVITY,
                expansion_add=EXPANSION_ADD,
                expansion_search=EXPANSION_SEARCH,
            )
        self._index.add(len(self._vectors), vector, threads=1)
        self._vectors.append(vector)
        self._item_ids.append(item.id)

    def _embedded(self, text: str) -> Int8:
        """The vector of a text; that of the last one is kept, as `add` often follows `check`."""
        if self._last is None or self._last[0] != text:
            self._last = (text, self._embedder.embed([text])[0])
        return self._last[1]
