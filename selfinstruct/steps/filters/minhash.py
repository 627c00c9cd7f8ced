"""Near-duplicates: reject what shares most word n-grams with a seed or a kept record.

MinHash (Broder, 1997) estimates the Jaccard similarity of two sets of n-grams from short
signatures; cutting the signatures into bands finds, without looking at every pair, those that are
likely above a threshold. Each pair found this way is then measured exactly, so nothing is rejected
by chance, and the bands are chosen so that at most 1% of the pairs at the threshold are missed
(fewer above it).
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.words import unicode_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NEAR_DUPLICATE = "near_duplicate"
REASONS = {NEAR_DUPLICATE: "it shares most of its phrases with a seed or a kept record (Jaccard)"}

MAX_CHARACTERS = 100_000  # of a text that are compared
MAX_WORDS = 10_000  # of those
SEED = 1  # of the permutations
SCHEME = "affine32"  # named, as datasketch may change its default again
RECALL = 0.99  # share of the pairs at the threshold that the bands must find
MAX_PERMUTATIONS = 140  # time and memory grow with them, and false candidates shrink
MIN_THRESHOLD = 0.02  # below it single rows do not reach the recall with any sane number of bands

Grams = frozenset[tuple[str, ...]]


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """How to cut a signature: the most rows a band that reach `RECALL` at `threshold`.

    Two sets of Jaccard similarity s share all r rows of at least one of b bands with probability
    1 - (1 - s**r)**b. More rows mean fewer false candidates.
    """
    best = (_bands(threshold, 1), 1)
    for rows in range(2, MAX_PERMUTATIONS + 1):
        bands = _bands(threshold, rows)
        if bands * rows <= MAX_PERMUTATIONS:
            best = (bands, rows)
    return best


def _bands(threshold: float, rows: int) -> int:
    """The fewest bands of `rows` rows that reach `RECALL`."""
    shared = threshold**rows
    if shared == 1:
        return 1
    return max(1, math.ceil(math.log(1 - RECALL) / math.log1p(-shared)))


def grams(words: list[str], size: int) -> Grams:
    """The word n-grams of a text as a set; a text shorter than `size` is one shorter n-gram."""
    size = min(size, len(words))
    if not size:
        return frozenset()
    return frozenset(zip(*(words[start:] for start in range(size)), strict=False))


class NearDuplicate:
    """Rejects a candidate whose Jaccard similarity with anything added is `threshold` or more.

    Instruction, input and output count together, as one text in `words.unicode_words`. A text
    without words is near nothing.

    Args:
        threshold: `MIN_THRESHOLD` <= threshold <= 1; at 1 only equal sets of n-grams are rejected.
        ngram: words in an n-gram.

    Raises:
        RecipeError: `threshold` is too low to be found by bands.
    """

    name = "minhash"

    def __init__(self, threshold: float = 0.7, ngram: int = 3) -> None:
        if threshold < MIN_THRESHOLD:
            raise RecipeError(
                f"filters.minhash.threshold is {threshold:g}: must be at least {MIN_THRESHOLD:g}, "
                "or set filters.minhash.enabled: false"
            )
        self._threshold = threshold
        self._ngram = ngram
        self._bander = _Bander(*bands_and_rows(threshold))
        # Most buckets hold one text: a list for each would take most of the memory.
        self._first: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}
        self._item_ids: list[str] = []
        self._texts: list[str] = []  # words joined by spaces: a tenth of the memory of n-grams
        self._sizes: list[int] = []  # how many n-grams
        self._last: tuple[str, tuple[int, ...]] | None = None

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the most similar neighbour, the earliest of equals."""
        words = self._words(candidate)
        found = grams(words, self._ngram)
        best, score = -1, 0.0
        for position in self._candidates(words, found):
            similarity = self._jaccard(found, position)
            if similarity >= self._threshold and similarity > score:
                best, score = position, similarity
        if best < 0:
            return None
        return Verdict(
            candidate_id=candidate.id,
            reason=NEAR_DUPLICATE,
            detail=f"Jaccard {score:.3f} with {self._item_ids[best]}, from {self._threshold:g} up",
            neighbour=self._item_ids[best],
            score=score,
        )

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate."""
        words = self._words(item)
        found = grams(words, self._ngram)
        position = len(self._item_ids)
        for band in self._bands_of(" ".join(words), found):
            if self._first.setdefault(band, position) != position:
                self._more.setdefault(band, []).append(position)
        self._item_ids.append(item.id)
        self._texts.append(" ".join(words))
        self._sizes.append(len(found))

    def _words(self, item: Candidate | SeedTask) -> list[str]:
        text = f"{item.instruction}\n{item.input}\n{item.output}"[:MAX_CHARACTERS]
        return unicode_words(text)[:MAX_WORDS]

    def _candidates(self, words: list[str], found: Grams) -> list[int]:
        """Positions that share a band, and that are not too large or small, in order."""
        least, most = self._threshold * len(found), len(found) / self._threshold
        positions: set[int] = set()
        for band in self._bands_of(" ".join(words), found):
            if band in self._first:
                positions.add(self._first[band])
                positions.update(self._more.get(band, ()))
        # Half an n-gram of slack for rounding.
        return sorted(at for at in positions if least - 0.5 <= self._sizes[at] <= most + 0.5)

    def _bands_of(self, text: str, found: Grams) -> tuple[int, ...]:
        """The bands of a text; those of the last one are kept, as `add` often follows `check`."""
        if self._last is None or self._last[0] != text:
            self._last = (text, self._bander(found))
        return self._last[1]

    def _jaccard(self, found: Grams, position: int) -> float:
        other = grams(self._texts[position].split(" "), self._ngram)
        shared = len(found & other)
        return shared / (len(found) + len(other) - shared)


class _Bander:
    """Bands of sets of n-grams, each as one 64-bit integer."""

    def __init__(self, bands: int, rows: int) -> None:
        import numpy as np
        from datasketch import MinHash

        self._minhash = MinHash
        self._shape = (bands, rows)
        self._permutations = MinHash(bands * rows, seed=SEED, scheme=SCHEME).permutations
        draw = np.random.RandomState(SEED)
        # Random odd multipliers fold the rows of a band into 64 bits; a collision costs a
        # comparison and nothing else.
        self._fold: npt.NDArray[np.uint64] = draw.randint(
            0, 2**63, self._shape, dtype=np.uint64
        ) * np.uint64(2) + np.uint64(1)

    def __call__(self, found: Grams) -> tuple[int, ...]:
        """One integer for each band; none for an empty set."""
        if not found:
            return ()
        sketch = self._minhash(
            seed=SEED,
            num_perm=self._shape[0] * self._shape[1],
            permutations=self._permutations,
            hashfunc=_hash,
            scheme=SCHEME,
        )
        sketch.update_batch(found)
        rows = sketch.hashvalues.reshape(self._shape).astype("u8")
        folded: list[int] = (rows * self._fold).sum(axis=1, dtype="u8").tolist()
        return tuple(folded)


def _hash(gram: tuple[str, ...]) -> int:
    """32 bits of an n-gram; the same in every process, unlike `hash`."""
    return zlib.crc32(" ".join(gram).encode("utf-8", "surrogatepass"))
