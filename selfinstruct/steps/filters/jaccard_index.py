"""All texts so far as sets of word n-grams, and the one nearest to a new one by Jaccard similarity.

Texts of up to `LONG` n-grams are found exactly: a set's rarest n-grams are looked up and listed, as
many as must hold one that is shared (`compiled_jaccard` says why). Longer ones are found by MinHash
bands (Broder, 1997), which are a few dozen numbers whatever the length: two sets of similarity s
have equal MinHash values with probability s, all r of a band with s**r, and one band of b at least
with 1 - (1 - s**r)**b. The bands are chosen for the threshold. Every pair found is measured
exactly, so nothing is rejected by an estimate.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfinstruct.steps.filters.rouge import MAX_WORDS
from selfinstruct.steps.filters.rouge_index import Near

if TYPE_CHECKING:
    from selfinstruct.core.types import Book

LONG = 512  # n-grams up to which a text is found exactly
SEED = 1  # of the permutations
SCHEME = "affine32"  # named, as datasketch may change its default again
RECALL = 0.99  # share of the pairs at the threshold that the bands must find
MAX_PERMUTATIONS = 140  # time and memory grow with them, and false candidates shrink

_SLACK = 0.01  # n-grams; far above the rounding of floats at 10,000 n-grams

Gram = tuple[str, ...]
Grams = frozenset[Gram]


def grams(words: Sequence[str], size: int) -> Grams:
    """The word n-grams of a text as a set; a text shorter than `size` is one shorter n-gram."""
    size = min(size, len(words))
    if not size:
        return frozenset()
    return frozenset(zip(*(words[start:] for start in range(size)), strict=False))


def bounds(threshold: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """By m + n: the least overlap of a pair at the threshold. By m: n-grams to look up."""
    both = np.arange(2 * MAX_WORDS + 1)
    needed = np.maximum(1, np.ceil(both * (threshold / (1 + threshold)) - _SLACK))
    one = np.arange(MAX_WORDS + 1)
    prefix = one - np.maximum(1, np.ceil(one * threshold - _SLACK)) + 1
    return needed.astype(np.int64), prefix.astype(np.int64).clip(0)


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """How to cut a signature: the most rows a band that reach `RECALL` at `threshold`.

    More rows mean fewer false candidates.
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


class Bander:
    """Bands of sets of n-grams, each as one positive integer of 63 bits.

    Args:
        threshold: the similarity that the bands are chosen for.
        ngram: words in an n-gram.
        sketches: keeps the bands of long texts over sessions.
    """

    def __init__(self, threshold: float, ngram: int, sketches: Book | None = None) -> None:
        self._sketches = sketches
        self._shape = bands_and_rows(threshold)
        self._ngram = ngram
        # Such a text may be near one of more than `LONG` n-grams.
        self._shortest = threshold * LONG - 1 + ngram
        draw = np.random.RandomState(SEED)
        # Random odd multipliers fold the rows of a band into one number; a collision costs a
        # comparison and nothing else.
        self._fold: npt.NDArray[np.uint64] = draw.randint(
            0, 2**63, self._shape, dtype=np.uint64
        ) * np.uint64(2) + np.uint64(1)
        self._permutations: object = None

    def of_long(self, words: Sequence[str]) -> tuple[int, ...]:
        """The bands of a text that is long, or near enough to it; none for others."""
        if len(words) < self._shortest:
            return ()
        words = words[:MAX_WORDS]
        if self._sketches is None:
            return self(grams(words, self._ngram))
        made_by = f"{SCHEME} {SEED} {self._shape} {self._ngram} "
        text = (made_by + " ".join(words)).encode("utf-8", "surrogatepass")
        key = blake2b(text, digest_size=16).digest()
        if (kept := self._sketches.get(key)) is not None:
            return tuple(np.frombuffer(kept, "<i8").tolist())
        bands = self(grams(words, self._ngram))
        self._sketches.put(key, np.array(bands, "<i8").tobytes())
        return bands

    def __call__(self, found: Grams) -> tuple[int, ...]:
        """One integer for each band; none for an empty set."""
        from datasketch import MinHash

        if not found:
            return ()
        count = self._shape[0] * self._shape[1]
        if self._permutations is None:
            self._permutations = MinHash(count, seed=SEED, scheme=SCHEME).permutations
        sketch = MinHash(
            seed=SEED,
            num_perm=count,
            permutations=self._permutations,
            hashfunc=_hash,
            scheme=SCHEME,
        )
        sketch.update_batch(found)
        rows = sketch.hashvalues.reshape(self._shape).astype("u8")
        folded = (rows * self._fold).sum(axis=1, dtype="u8")
        return tuple((folded >> np.uint64(1) | np.uint64(1)).tolist())


def _hash(gram: Gram) -> int:
    """32 bits of an n-gram; the same in every process, unlike `hash`."""
    return zlib.crc32(" ".join(gram).encode("utf-8", "surrogatepass"))


class GramIndex:
    """Word lists in the order they were added.

    Args:
        threshold: the similarity from which a text counts as near, 0 < threshold <= 1.
        ngram: words in an n-gram.
        bander: the bands of long texts.
    """

    def __init__(self, threshold: float, ngram: int, bander: Bander) -> None:
        self._threshold = threshold
        self._ngram = ngram
        self._bander = bander
        needed, prefix = bounds(threshold)
        self._needed, self._prefix = needed.tolist(), prefix.tolist()
        self._ids: dict[str, int] = {}
        # Most keys are those of one text: a list for each would take most of the memory.
        self._first: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}
        self._texts: list[str] = []  # words joined by spaces: a tenth of the memory of n-grams
        self._sizes: list[int] = []  # how many n-grams

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, words: Sequence[str]) -> None:
        """Remember a word list; its first `MAX_WORDS` words count."""
        words = words[:MAX_WORDS]
        for word in words:
            self._ids.setdefault(word, len(self._ids))
        found = grams(words, self._ngram)
        position = len(self._texts)
        keys = self._bander.of_long(words) if len(found) > LONG else self._rarest(found)
        for key in keys:
            if self._first.setdefault(key, position) != position:
                self._more.setdefault(key, []).append(position)
        self._texts.append(" ".join(words))
        self._sizes.append(len(found))

    def nearest(self, words: Sequence[str]) -> Near | None:
        """The text with the highest similarity, the earliest of equals, or None."""
        words = words[:MAX_WORDS]
        found = grams(words, self._ngram)
        best: Near | None = None
        for position in self._candidates(words, found):
            other = grams(self._texts[position].split(" "), self._ngram)
            shared = len(found & other)
            score = shared / (len(found) + len(other) - shared)
            if score >= self._threshold and (best is None or score > best.score):
                best = Near(position, score)
        return best

    def _candidates(self, words: Sequence[str], found: Grams) -> list[int]:
        """The texts to measure, in their order.

        Of the n-grams that two texts share, those that are not in both prefixes come in the order
        after the end of the prefix that ends first, so they are no more than what is left of that
        text. Where many n-grams are common, this leaves out most pairs that share a rare one.
        """
        hits: Counter[int] = Counter()
        for key in (*self._rarest(found), *self._bander.of_long(words)):
            if key in self._first:
                hits[self._first[key]] += 1
                hits.update(self._more.get(key, ()))
        m, left = len(found), len(found) - self._prefix[len(found)]
        return sorted(
            position
            for position, shared in hits.items()
            if (least := self._needed[m + (n := self._sizes[position])]) <= min(m, n)
            and (n > LONG or shared + max(left, n - self._prefix[n]) >= least)
        )

    def _rarest(self, found: Grams) -> Sequence[int]:
        """The n-grams to look up and list, as hashes: rarest are those whose rarest word came last.

        Python's hash differs from process to process, but all it can add is a pair to measure.
        """
        ids, unknown = self._ids, len(self._ids)

        def rarity(gram: Gram) -> tuple[int, Gram]:
            return -max([ids.get(word, unknown) for word in gram]), gram

        prefix = self._prefix[len(found)]
        return [hash(gram) for gram in sorted(found, key=rarity)[:prefix]]
