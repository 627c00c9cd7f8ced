"""The compiled index of word lists: the nearest by ROUGE-L above a threshold, exactly.

Take two texts of m and n words whose F1 = 2 lcs / (m + n) is above t. They share more than
t (m + n) / 2 elements, where an element is a word and which occurrence of it in the text it is.
Sort the elements of every text in one order, rarest first. Then the pair shares one within the
first m - o + 1 elements of the one and n - o + 1 of the other, where o is the least overlap that
suffices: else what is left is too short for the rest. As n is at least m t / (2 - t), the first
m - ceil(m t / (2 - t)) + 1 elements are enough to look up and to list, whatever n is. This is the
prefix filter of AllPairs (Bayardo, Ma and Srikant, WWW 2007), and judging each hit by its places in
both texts is the positional filter of PPJoin (Xiao et al., WWW 2008).

What passes is held against a signature that lies in the list itself: 64 parities of word counts.
The bits in which two signatures differ are words that only one text has, of which there may be no
more than m + n - 2 o. What is left gets its true LCS, bit-parallel over 64 words at a time (Hyyro,
2004), and rouge_score's own float formula. All bounds have slack for rounding, so no decision ever
depends on them.

Rare is what came late: words are numbered as they are first met, by frequency in the first texts
(`WordIds.learn`), and the later occurrences of a word count as rarer still. Any order would do;
this one needs no second look at a text when more come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from selfinstruct.steps.filters.compiled import (
    COUNT_BITS,
    COUNT_MASK,
    LIST,
    MAX_CHUNK,
    META,
    ROWS,
    STAMP,
    Array,
    Segments,
    WordIds,
    allocate,
    compiled,
    find,
    grown,
    has_room,
    new_segments,
    offset,
    ones,
    post,
    sort,
    store_words,
    word_at,
)
from selfinstruct.steps.filters.rouge import MAX_WORDS
from selfinstruct.steps.filters.rouge_index import Near

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

_SLACK = 0.01  # words; far above the rounding of floats at 10,000 words
_CHECK, _ADD, _DECIDE = 0, 1, 2

# The scratch space: elements, carries, the masks of 64 words, the counts of a long text.
_MASK_SLOTS, _COUNT_SLOTS, _RECENT = 256, 1 << 15, 1 << 10
_KEYS = 0
_CARRY = _KEYS + MAX_WORDS
_MASKS = _CARRY + MAX_WORDS
_COUNTS = _MASKS + 2 * _MASK_SLOTS
_SEEN = _COUNTS + 2 * _COUNT_SLOTS
_SCRATCH = _SEEN + 2 * _RECENT


class RougeJoin:
    """Word lists in the order they were added; `rouge_index.RougeIndex`, compiled.

    Args:
        threshold: F1 above which a text counts as near, 0 < threshold <= 1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._needed, self._prefix = _bounds(threshold)
        self._segments = new_segments()
        self._meta = np.zeros(META, np.int64)
        self._scratch = np.zeros(_SCRATCH, np.int64)
        self._ids = WordIds()
        self._last: tuple[Sequence[str], Ids] | None = None
        self._bounds1 = np.zeros(2, np.int64)
        self._row1, self._score1 = np.zeros(1, np.int64), np.zeros(1, np.float64)

    def __len__(self) -> int:
        return int(self._meta[ROWS])

    def learn(self, texts: Iterable[Sequence[str]]) -> None:
        """Let the first texts say which words are frequent; adds nothing."""
        self._ids.learn(texts)

    def add(self, words: Sequence[str]) -> None:
        """Remember a word list; its first `MAX_WORDS` words count."""
        self._one(words, _ADD)

    def nearest(self, words: Sequence[str]) -> Near | None:
        """The text with the highest F1 above the threshold, the earliest of equals, or None."""
        self._one(words, _CHECK)
        row = int(self._row1[0])
        return None if row < 0 else Near(row, float(self._score1[0]))

    def add_all(self, texts: Sequence[Sequence[str]]) -> None:
        """Remember several word lists, without looking for their neighbours."""
        self._several(texts, _ADD)

    def decide(self, texts: Sequence[Sequence[str]]) -> tuple[Array, Floats]:
        """Add each text that is near nothing added so far; the nearest and its F1 for the others.

        A neighbour is a position in the order of `add`; -1 and 0 for what was added.
        """
        return self._several(texts, _DECIDE)

    def _one(self, words: Sequence[str], what: int) -> None:
        # `add` often follows `nearest` with the same list.
        if self._last is None or self._last[0] is not words:
            ids = np.array([self._ids[word] for word in words[:MAX_WORDS]], np.int32)
            self._last = (words, ids)
        ids = self._last[1]
        self._bounds1[1] = len(ids)
        self._run(ids, self._bounds1, what, self._row1, self._score1)

    def _several(self, texts: Sequence[Sequence[str]], what: int) -> tuple[Array, Floats]:
        cut = [text[:MAX_WORDS] for text in texts]
        bounds = np.zeros(len(cut) + 1, np.int64)
        np.cumsum([len(text) for text in cut], out=bounds[1:])
        flat = map(self._ids.__getitem__, chain.from_iterable(cut))
        ids = np.fromiter(flat, np.int32, int(bounds[-1]))
        rows, scores = np.full(len(cut), -1, np.int64), np.zeros(len(cut), np.float64)
        self._run(ids, bounds, what, rows, scores)
        return rows, scores

    def _run(self, ids: Ids, bounds: Array, what: int, rows: Array, scores: Floats) -> None:
        at = 0
        while True:
            at = _each(
                self._segments,
                self._meta,
                self._scratch,
                self._needed,
                self._prefix,
                self._threshold,
                ids,
                bounds,
                at,
                what,
                rows,
                scores,
            )
            if at == len(rows):
                return
            self._segments = grown(self._segments, self._meta)


def _bounds(threshold: float) -> tuple[Array, Array]:
    """By m + n: the least overlap of a pair above the threshold. By m: elements to look up."""
    both = np.arange(2 * MAX_WORDS + 1)
    needed = np.maximum(1, np.ceil(threshold * both / 2 - _SLACK)).astype(np.int64)
    one = np.arange(MAX_WORDS + 1)
    least = np.maximum(1, np.ceil(one * (threshold / (2 - threshold)) - _SLACK))
    return needed, (one - least + 1).astype(np.int64).clip(0)


@compiled
def _each(
    segments: Segments,
    meta: Array,
    scratch: Array,
    needed: Array,
    prefix: Array,
    threshold: float,
    ids: Ids,
    bounds: Array,
    begin: int,
    what: int,
    rows: Array,
    scores: Floats,
) -> int:
    """Check, add or decide on texts from number `begin` on; stops where the arena must grow.

    Text i is ``ids[bounds[i] : bounds[i + 1]]``. Returns the number of the first text not done.
    """
    for at in range(begin, len(rows)):
        words = ids[bounds[at] : bounds[at + 1]]
        m = len(words)
        if what != _CHECK and not has_room(segments, meta, m * (2 * MAX_CHUNK + 4) + 4):
            return at
        signature = _elements(scratch, words)
        rows[at] = -1
        scores[at] = 0.0
        if what != _ADD and m > 0:
            row, score = _nearest(
                segments, meta, scratch, needed, prefix, threshold, words, signature
            )
            rows[at] = row
            scores[at] = score
        if what == _ADD or (what == _DECIDE and rows[at] < 0):
            _add(segments, meta, scratch, prefix, words, signature)
    return len(rows)


@compiled
def _elements(scratch: Array, words: Ids) -> int:
    """Put the elements of a text into the scratch space, rarest first; returns its signature.

    An element of 62 bits holds the word's number, shifted left by three for each earlier occurrence
    of it, as if that were eight times as rare, and below it that occurrence's number. No two
    elements are equal: where the shifted numbers are, the occurrences are not.
    """
    keys = scratch[_KEYS : _KEYS + MAX_WORDS]
    m = len(words)
    signature = 0
    for at in range(m):
        keys[at] = words[at]
        signature ^= 1 << (keys[at] & 63)
    sort(keys, m)
    before = -1
    occurrence = 0
    for at in range(m):
        word = keys[at]
        occurrence = occurrence + 1 if word == before else 0
        before = word
        # Negative, so that ascending is rarest first; no key is 0.
        keys[at] = -((((word + 8) << (3 * min(occurrence, 7))) << COUNT_BITS) | occurrence)
    sort(keys, m)
    return signature


@compiled
def _add(
    segments: Segments, meta: Array, scratch: Array, prefix: Array, words: Ids, signature: int
) -> None:
    """Store a text whose elements are in the scratch space, and list its prefix."""
    n = len(words)
    row = meta[ROWS]
    meta[ROWS] = row + 1
    if n == 0:
        return
    address = allocate(segments, meta, 1 + (n + 1) // 2)
    segment = segments[address >> 31]
    begin = offset(address)
    segment[begin] = (row << COUNT_BITS) | n
    store_words(segment, begin + 1, words)
    for at in range(prefix[n]):
        entry = ((((address >> 1) << COUNT_BITS) | n) << COUNT_BITS) | at
        post(segments, meta, scratch[_KEYS + at], entry, signature, 2)


@compiled
def _nearest(
    segments: Segments,
    meta: Array,
    scratch: Array,
    needed: Array,
    prefix: Array,
    threshold: float,
    words: Ids,
    signature: int,
) -> tuple[int, float]:
    """The row and the F1 of the nearest text above the threshold; -1 and 0 without one."""
    m = len(words)
    meta[STAMP] += 1
    stamp = meta[STAMP]
    prepared = False
    best = threshold
    best_address = -1
    seen = scratch[_SEEN : _SEEN + 2 * _RECENT]
    for at in range(prefix[m]):
        value = find(segments, meta, scratch[_KEYS + at])
        chunk_address = (value ^ LIST) if value < 0 else 0
        while chunk_address > 0 or value < 0:
            value = 0
            chunk = segments[chunk_address >> 31]
            begin = offset(chunk_address)
            head = chunk[begin]
            chunk_address = head >> 16
            for entry_at in range(begin + 1, begin + 1 + 2 * (head & 0xFF), 2):
                entry = chunk[entry_at]
                n = (entry >> COUNT_BITS) & COUNT_MASK
                least = needed[m + n]
                if m - at < least or n - (entry & COUNT_MASK) < least:
                    continue
                if ones(signature ^ chunk[entry_at + 1]) > m + n - 2 * least:
                    continue
                address = (entry >> (2 * COUNT_BITS)) << 1
                slot = 2 * ((address ^ (address >> 10)) & (_RECENT - 1))
                if seen[slot] == stamp and seen[slot + 1] == address:
                    continue
                seen[slot] = stamp
                seen[slot + 1] = address
                if not prepared:
                    prepared = True
                    if m <= 64:
                        _masks(scratch, words, 0, m, stamp)
                    else:
                        _counts(scratch, words, stamp)
                lcs = _common(segments, meta, scratch, words, address, n, least, stamp)
                if lcs == 0:
                    continue
                precision = lcs / m
                recall = lcs / n
                score = 2 * precision * recall / (precision + recall)
                if score > best or (score == best and 0 <= address < best_address):
                    best = score
                    best_address = address
    if best_address < 0:
        return -1, 0.0
    head = segments[best_address >> 31][offset(best_address)]
    return head >> COUNT_BITS, best


@compiled
def _common(
    segments: Segments,
    meta: Array,
    scratch: Array,
    words: Ids,
    address: int,
    n: int,
    least: int,
    stamp: int,
) -> int:
    """The length of the LCS with a stored text, or 0 where it is surely below `least`."""
    segment = segments[address >> 31]
    begin = offset(address) + 1
    m = len(words)
    if m <= 64:
        return _lcs_short(scratch, m, segment, begin, n, stamp)
    if _overlap(scratch, segment, begin, n, stamp) < least:
        return 0
    return _lcs_long(meta, scratch, words, segment, begin, n)


@compiled
def _masks(scratch: Array, words: Ids, begin: int, end: int, stamp: int) -> None:
    """For each of up to 64 words of a text, the places it has: bit i is ``words[begin + i]``."""
    for at in range(begin, end):
        mark = (stamp << 31) | words[at]
        slot = (np.int64(words[at]) * 40503 >> 4) & (_MASK_SLOTS - 1)
        while True:
            held = scratch[_MASKS + 2 * slot]
            if held >> 31 != stamp:
                scratch[_MASKS + 2 * slot] = mark
                scratch[_MASKS + 2 * slot + 1] = 1 << (at - begin)
                break
            if held == mark:
                scratch[_MASKS + 2 * slot + 1] |= 1 << (at - begin)
                break
            slot = (slot + 1) & (_MASK_SLOTS - 1)


@compiled
def _mask(scratch: Array, word: int, stamp: int) -> int:
    """The places of `word` among those of `_masks`."""
    mark = (stamp << 31) | word
    slot = (word * 40503 >> 4) & (_MASK_SLOTS - 1)
    while True:
        held = scratch[_MASKS + 2 * slot]
        if held >> 31 != stamp:
            return 0
        if held == mark:
            return scratch[_MASKS + 2 * slot + 1]
        slot = (slot + 1) & (_MASK_SLOTS - 1)


@compiled
def _lcs_short(scratch: Array, m: int, segment: Array, begin: int, n: int, stamp: int) -> int:
    """LCS with a text of up to 64 words, whose masks are ready: V = (V + U) | (V - U)."""
    open_places = -1
    for at in range(n):
        matched = open_places & _mask(scratch, word_at(segment, begin, at), stamp)
        open_places = (open_places + matched) | (open_places - matched)
    if m < 64:
        open_places |= -1 << m
    return 64 - ones(open_places)


@compiled
def _lcs_long(meta: Array, scratch: Array, words: Ids, segment: Array, begin: int, n: int) -> int:
    """LCS with a text of more than 64 words, by blocks of 64; one carry a word between them."""
    m = len(words)
    for at in range(n):
        scratch[_CARRY + at] = 0
    lcs = 0
    for block in range(0, m, 64):
        end = min(block + 64, m)
        meta[STAMP] += 1
        stamp = meta[STAMP]
        _masks(scratch, words, block, end, stamp)
        places = -1
        for at in range(n):
            matched = places & _mask(scratch, word_at(segment, begin, at), stamp)
            added = places + matched
            total = added + scratch[_CARRY + at]
            # The carry out of 64 bits, from the signs: both set, or either and the sum clear.
            carry = ((places & matched) | ((places | matched) & ~total)) >> 63
            scratch[_CARRY + at] = carry & 1
            places = total | (places - matched)
        if end - block < 64:
            places |= -1 << (end - block)
        lcs += 64 - ones(places)
    return lcs


@compiled
def _counts(scratch: Array, words: Ids, stamp: int) -> None:
    """How often a text of more than 64 words has each of them."""
    for at in range(len(words)):
        mark = (stamp << 31) | words[at]
        slot = (np.int64(words[at]) * 40503 >> 2) & (_COUNT_SLOTS - 1)
        while scratch[_COUNTS + 2 * slot] >> 31 == stamp and scratch[_COUNTS + 2 * slot] != mark:
            slot = (slot + 1) & (_COUNT_SLOTS - 1)
        if scratch[_COUNTS + 2 * slot] != mark:
            scratch[_COUNTS + 2 * slot] = mark
            scratch[_COUNTS + 2 * slot + 1] = 0
        scratch[_COUNTS + 2 * slot + 1] += 1


@compiled
def _overlap(scratch: Array, segment: Array, begin: int, n: int, stamp: int) -> int:
    """How many words, as bags, a stored text shares with that of `_counts`."""
    shared = 0
    for step in (-1, 1):  # take each word shared from the counts, then give it back
        for at in range(n):
            word = word_at(segment, begin, at)
            mark = (stamp << 31) | word
            slot = (word * 40503 >> 2) & (_COUNT_SLOTS - 1)
            while scratch[_COUNTS + 2 * slot] >> 31 == stamp and (
                scratch[_COUNTS + 2 * slot] != mark
            ):
                slot = (slot + 1) & (_COUNT_SLOTS - 1)
            if scratch[_COUNTS + 2 * slot] == mark:
                if step < 0 and scratch[_COUNTS + 2 * slot + 1] > 0:
                    shared += 1
                scratch[_COUNTS + 2 * slot + 1] += step
    return shared
