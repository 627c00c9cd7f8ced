"""The compiled index of word n-grams: the nearest by Jaccard similarity from a threshold up.

Two sets of m and n n-grams with a similarity of t or more share at least t (m + n) / (1 + t). Sort
every set in one order, rarest first: the pair shares one of the first m - o + 1 and n - o + 1,
where o is that overlap, and as n is at least t m, the first m - ceil(t m) + 1 are enough to look up
and to list (AllPairs and PPJoin, as in `compiled_rouge`). Of what a pair shares, all that is not in
both prefixes lies after the end of the one that ends first, so it is no more than the rest of that
text: with the n-grams found in both prefixes, that must make o. Each pair left is measured exactly.

Texts of more than `jaccard_index.LONG` n-grams are listed by bands of their MinHash signature
instead: a few dozen keys, where their prefix would take hundreds.

An n-gram is one number: its words' numbers side by side, that of the rarest word in front, so that
sorting by it is sorting by rarity. Where a number is too large for its share of the bits (a word
past the 524,287th for 3-grams), the n-gram is a hash of 62 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from selfinstruct.steps.filters.compiled import (
    COUNT_BITS,
    COUNT_MASK,
    LIST,
    MAX_CHUNK,
    ROWS,
    STAMP,
    Array,
    Segments,
    allocate,
    compiled,
    find,
    has_room,
    mixed,
    offset,
    post,
    sort,
    store_words,
    word_at,
)
from selfinstruct.steps.filters.compiled_join import (
    ADD,
    CHECK,
    DECIDE,
    RECENT,
    Floats,
    Ids,
    Join,
    ends_of,
)
from selfinstruct.steps.filters.jaccard_index import LONG, Bander, bounds
from selfinstruct.steps.filters.rouge import MAX_WORDS

_PLACE_BITS = 4  # of the rarest word in its n-gram
_COUNT = (1 << 32) - 1  # of a counter; above it is the number of the check

# The scratch space: the n-grams of a text, the words of another, a hash set, texts looked at last,
# how often texts were found, and where the lists of the n-grams begin.
_SLOTS, _COUNTS = 1 << 15, 1 << 13
_KEYS = 0
_WORDS = _KEYS + MAX_WORDS
_SET = _WORDS + MAX_WORDS
_SEEN = _SET + 3 * _SLOTS
_HITS = _SEEN + 2 * RECENT
_LISTS = _HITS + _COUNTS
_SCRATCH = _LISTS + MAX_WORDS


class GramJoin(Join):
    """Word lists in the order they were added; `jaccard_index.GramIndex`, compiled.

    Args:
        threshold: the similarity from which a text counts as near, 0 < threshold <= 1.
        ngram: words in an n-gram, 1 to 10.
        bander: the bands of long texts.
    """

    def __init__(self, threshold: float, ngram: int, bander: Bander) -> None:
        needed, prefix = (bound.astype(np.int64) for bound in bounds(threshold))
        super().__init__(_each, (needed, prefix, threshold, ngram), _SCRATCH)
        self._bander = bander

    def _beside(self, texts: Sequence[Sequence[str]]) -> tuple[Array, Array]:
        """The bands of all long texts, and where each text's end."""
        banded = [self._bander.of_long(text) for text in texts]
        return np.array(list(chain.from_iterable(banded)), np.int64), ends_of(banded)


@compiled
def _each(
    segments: Segments,
    meta: Array,
    scratch: Array,
    needed: Array,
    prefix: Array,
    threshold: float,
    ngram: int,
    ids: Ids,
    ends: Array,
    bands: Array,
    band_ends: Array,
    begin: int,
    what: int,
    rows: Array,
    scores: Floats,
) -> int:
    """Check, add or decide on texts from number `begin` on; stops where the arena must grow.

    Text i is ``ids[ends[i] : ends[i + 1]]``, and its bands lie alike. Returns the number of the
    first text not done.
    """
    for at in range(begin, len(rows)):
        words = ids[ends[at] : ends[at + 1]]
        own = bands[band_ends[at] : band_ends[at + 1]]
        wanted = (len(words) + len(own)) * (MAX_CHUNK + 4) + 4
        if what != CHECK and not has_room(segments, meta, wanted):
            return at
        m = _grams(scratch, words, ngram)
        rows[at] = -1
        scores[at] = 0.0
        if what != ADD and m > 0:
            row, score = _nearest(segments, meta, scratch, needed, prefix, threshold, ngram, m, own)
            rows[at] = row
            scores[at] = score
        if what == ADD or (what == DECIDE and rows[at] < 0):
            _add(segments, meta, scratch, prefix, words, m, own)
    return len(rows)


@compiled
def _gram(words: Ids | Array, at: int, size: int, ngram: int) -> int:
    """The number of the n-gram of `size` words from place `at` on; smaller is rarer."""
    bits = (62 - _PLACE_BITS) // ngram
    rarest = 0
    for place in range(1, size):
        if words[at + place] > words[at + rarest]:
            rarest = place
    if words[at + rarest] + 1 < 1 << bits:
        packed = int(words[at + rarest]) + 1
        for place in range(size):
            if place != rarest:
                packed = (packed << bits) | (int(words[at + place]) + 1)
        return -((packed << _PLACE_BITS) | rarest)
    spread = size
    for place in range(size):
        spread = mixed(spread ^ (int(words[at + place]) + 1))
    return -((1 << 62) | (spread & ((1 << 62) - 1)))


@compiled
def _grams(scratch: Array, words: Ids, ngram: int) -> int:
    """Put the distinct n-grams of a text into the scratch space, rarest first; how many."""
    size = min(ngram, len(words))
    if size == 0:
        return 0
    keys = scratch[_KEYS : _KEYS + MAX_WORDS]
    count = len(words) - size + 1
    for at in range(count):
        keys[at] = _gram(words, at, size, ngram)
    sort(keys, count)
    distinct = 1
    for at in range(1, count):
        if keys[at] != keys[distinct - 1]:
            keys[distinct] = keys[at]
            distinct += 1
    return distinct


@compiled
def _add(
    segments: Segments,
    meta: Array,
    scratch: Array,
    prefix: Array,
    words: Ids,
    n: int,
    bands: Array,
) -> None:
    """Store a text whose n-grams are in the scratch space, and list its prefix or its bands."""
    row = meta[ROWS]
    meta[ROWS] = row + 1
    if n == 0:
        return
    address = allocate(segments, meta, 1 + (len(words) + 1) // 2)
    segment = segments[address >> 31]
    begin = offset(address)
    segment[begin] = (((row << COUNT_BITS) | len(words)) << COUNT_BITS) | n
    store_words(segment, begin + 1, words)
    entry = (((address >> 1) << COUNT_BITS) | n) << COUNT_BITS
    if n > LONG:
        for at in range(len(bands)):
            post(segments, meta, bands[at], entry, 0, 1)
    else:
        for at in range(prefix[n]):
            post(segments, meta, scratch[_KEYS + at], entry | at, 0, 1)


@compiled
def _nearest(
    segments: Segments,
    meta: Array,
    scratch: Array,
    needed: Array,
    prefix: Array,
    threshold: float,
    ngram: int,
    m: int,
    bands: Array,
) -> tuple[int, float]:
    """The row and similarity of the nearest text from the threshold up; -1 and 0 without one."""
    meta[STAMP] += 1
    stamp = meta[STAMP]
    prepared = False
    best = threshold
    best_address = -1
    looked_up = prefix[m]
    _count(segments, meta, scratch, looked_up, stamp)
    for at in range(looked_up + len(bands)):
        place = at if at < looked_up else 0
        if at < looked_up:
            value = scratch[_LISTS + at]
        else:
            value = find(segments, meta, bands[at - looked_up])
        if value == 0:
            continue
        chunk_address = (value ^ LIST) if value < 0 else 0
        while True:
            head = 1 << 8 | 1
            chunk = segments[chunk_address >> 31]
            begin = offset(chunk_address)
            if value < 0:
                head = chunk[begin]
            for entry_at in range(begin + 1, begin + 1 + (head & 0xFF)):
                entry = chunk[entry_at] if value < 0 else value
                n = (entry >> COUNT_BITS) & COUNT_MASK
                least = needed[m + n]
                if m - place < least or n - (entry & COUNT_MASK) < least:
                    continue
                address = (entry >> (2 * COUNT_BITS)) << 1
                if n <= LONG:
                    hits = scratch[_HITS + _counter(address)] & _COUNT
                    if hits + max(m - looked_up, n - prefix[n]) < least:
                        continue
                slot = _SEEN + 2 * ((address ^ (address >> 10)) & (RECENT - 1))
                if scratch[slot] == stamp and scratch[slot + 1] == address:
                    continue
                scratch[slot] = stamp
                scratch[slot + 1] = address
                if not prepared:
                    prepared = True
                    _fill(scratch, m, stamp)
                shared = _shared(segments, scratch, ngram, address, stamp)
                score = shared / (m + n - shared)
                earlier = best_address < 0 or address < best_address
                if score > best or (score == best and earlier):
                    best = score
                    best_address = address
            chunk_address = head >> 16
            if value > 0 or chunk_address == 0:
                break
    if best_address < 0:
        return -1, 0.0
    return segments[best_address >> 31][offset(best_address)] >> (2 * COUNT_BITS), best


@compiled
def _counter(address: int) -> int:
    return ((address >> 1) ^ (address >> 14)) & (_COUNTS - 1)


@compiled
def _count(segments: Segments, meta: Array, scratch: Array, looked_up: int, stamp: int) -> None:
    """Count how often each text is listed under the n-grams to look up.

    Texts may share a counter, which then says too much and leaves out nothing.
    """
    # The walk along the lists is that of `_nearest`, written out in both: with its steps in
    # functions of their own, 30,000 texts of Alpaca took a quarter more time.
    for at in range(looked_up):
        value = find(segments, meta, scratch[_KEYS + at])
        scratch[_LISTS + at] = value
        if value == 0:
            continue
        chunk_address = (value ^ LIST) if value < 0 else 0
        while True:
            head = 1 << 8 | 1
            chunk = segments[chunk_address >> 31]
            begin = offset(chunk_address)
            if value < 0:
                head = chunk[begin]
            for entry_at in range(begin + 1, begin + 1 + (head & 0xFF)):
                entry = chunk[entry_at] if value < 0 else value
                slot = _HITS + _counter((entry >> (2 * COUNT_BITS)) << 1)
                if scratch[slot] >> 32 != stamp:
                    scratch[slot] = stamp << 32
                scratch[slot] += 1
            chunk_address = head >> 16
            if value > 0 or chunk_address == 0:
                break


@compiled
def _fill(scratch: Array, m: int, stamp: int) -> None:
    """Make the text's n-grams the hash set: a slot holds the n-gram, whose set, and last match."""
    for at in range(m):
        key = scratch[_KEYS + at]
        slot = mixed(key) & (_SLOTS - 1)
        while scratch[_SET + 3 * slot + 1] == stamp:
            slot = (slot + 1) & (_SLOTS - 1)
        scratch[_SET + 3 * slot] = key
        scratch[_SET + 3 * slot + 1] = stamp
        scratch[_SET + 3 * slot + 2] = 0


@compiled
def _shared(segments: Segments, scratch: Array, ngram: int, address: int, stamp: int) -> int:
    """How many distinct n-grams of a stored text are in the hash set."""
    segment = segments[address >> 31]
    begin = offset(address)
    count = (segment[begin] >> COUNT_BITS) & COUNT_MASK
    words = scratch[_WORDS : _WORDS + MAX_WORDS]
    for at in range(count):
        words[at] = word_at(segment, begin + 1, at)
    size = min(ngram, count)
    shared = 0
    for at in range(count - size + 1):
        key = _gram(words, at, size, ngram)
        slot = mixed(key) & (_SLOTS - 1)
        while scratch[_SET + 3 * slot + 1] == stamp:
            if scratch[_SET + 3 * slot] == key:
                if scratch[_SET + 3 * slot + 2] != address + 1:
                    scratch[_SET + 3 * slot + 2] = address + 1
                    shared += 1
                break
            slot = (slot + 1) & (_SLOTS - 1)
    return shared
