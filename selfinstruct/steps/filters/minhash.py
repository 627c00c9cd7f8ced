"""Near-duplicates: reject what shares most word n-grams with a seed or a kept record.

The index is `jaccard_index`, which finds short texts exactly and long ones by MinHash bands, and
measures each pair it finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.types import Book, Candidate, SeedTask, Verdict
from selfinstruct.steps.filters.novelty import Decisions, decided
from selfinstruct.steps.words import unicode_words

if TYPE_CHECKING:
    from selfinstruct.steps.filters.index_pool import IndexPool

NEAR_DUPLICATE = "near_duplicate"
REASONS = {NEAR_DUPLICATE: "it shares most of its phrases with a seed or a kept record (Jaccard)"}

MAX_CHARACTERS = 100_000  # of a text that are compared; `jaccard_index` also limits its words
MIN_THRESHOLD = 0.02  # below it single rows do not reach the recall with any sane number of bands
ROWS_AT_ONCE = 4096  # texts that `near_mask` holds as words


def _pool(threshold: float, ngram: int, sketches: Book | None = None) -> IndexPool:
    # Here, as naming the reasons must not cost the import of numpy.
    from selfinstruct.steps.filters.index_pool import IndexPool
    from selfinstruct.steps.filters.jaccard_index import Bander, GramIndex

    if threshold < MIN_THRESHOLD:
        raise RecipeError(
            f"filters.minhash.threshold is {threshold:g}: must be at least {MIN_THRESHOLD:g}, "
            "or set filters.minhash.enabled: false"
        )
    bander = Bander(threshold, ngram, sketches)
    small = GramIndex(threshold, ngram, bander)
    return IndexPool(small, "jaccard", threshold, ngram, bander)


class NearDuplicate:
    """Rejects a candidate whose Jaccard similarity with anything added is `threshold` or more.

    Instruction, input and output count together, as one text in `words.unicode_words`. A text
    without words is near nothing.

    Args:
        threshold: `MIN_THRESHOLD` <= threshold <= 1; at 1 only equal sets of n-grams are rejected.
        ngram: words in an n-gram.
        sketches: keeps the bands of long texts, so that a run that continues need not make them.

    Raises:
        RecipeError: `threshold` is too low to be found by bands.
    """

    name = "minhash"

    def __init__(
        self, threshold: float = 0.7, ngram: int = 3, sketches: Book | None = None
    ) -> None:
        self._threshold = threshold
        self._pool = _pool(threshold, ngram, sketches)
        self._item_ids: list[str] = []
        self._last: tuple[str, list[str]] = ("", [])

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the most similar neighbour, the earliest of equals."""
        near = self._pool.nearest(self._words(candidate))
        if near is None:
            return None
        neighbour = self._item_ids[near.position]
        return Verdict(
            candidate_id=candidate.id,
            reason=NEAR_DUPLICATE,
            detail=f"Jaccard {near.score:.3f} with {neighbour}, from {self._threshold:g} up",
            neighbour=neighbour,
            score=near.score,
        )

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate."""
        self._pool.add(self._words(item))
        self._item_ids.append(item.id)

    def _words(self, item: Candidate | SeedTask) -> list[str]:
        """The words compared; those of the last text are kept, as `add` often follows `check`."""
        text = f"{item.instruction}\n{item.input}\n{item.output}"[:MAX_CHARACTERS]
        if text != self._last[0]:
            self._last = (text, unicode_words(text))
        return self._last[1]


def near_mask(texts: Iterable[str], threshold: float = 0.7, ngram: int = 3) -> Decisions:
    """Decide on texts one after the other, each against those kept before it.

    Args:
        texts: read once, so they may come from a stream; `MAX_CHARACTERS` of each are compared.
        threshold: the Jaccard similarity from which a text is dropped.
        ngram: words in an n-gram.

    Raises:
        RecipeError: `threshold` is too low to be found by bands.
    """
    pool, coming = _pool(threshold, ngram), iter(texts)
    rows = iter(
        lambda: [unicode_words(text[:MAX_CHARACTERS]) for text in islice(coming, ROWS_AT_ONCE)], []
    )
    return decided(pool.decide(some) for some in rows)
