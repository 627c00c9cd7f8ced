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
    offset,
    ones,
    post,
    sort,
    store_words,
)
from selfinstruct.steps.filters.compiled_join import ADD, CHECK, DECIDE, RECENT, Floats, Ids, Join
from selfinstruct.steps.filters.compiled_lcs import (
    LCS_SCRATCH,
    counts,
    lcs_long,
    lcs_short,
    masks,
    overlap,
)
from selfinstruct.steps.filters.rouge import MAX_WORDS

_SLACK = 0.01  # words; far above the rounding of floats at 10,000 words

# The scratch space: what the LCS needs, the elements of a text, texts looked at last.
_KEYS = LCS_SCRATCH
_SEEN = _KEYS + MAX_WORDS
_SCRATCH = _SEEN + 2 * RECENT


class RougeJoin(Join):
    """Word lists in the order they were added; `rouge_index.RougeIndex`, compiled.

    Args:
        threshold: F1 above which a text counts as near, 0 < threshold <= 1.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__(_each, (*_bounds(threshold), threshold), _SCRATCH)


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
        if what != CHECK and not has_room(segments, meta, m * (2 * MAX_CHUNK + 4) + 4):
            return at
        signature = _elements(scratch, words)
        rows[at] = -1
        scores[at] = 0.0
        if what != ADD and m > 0:
            row, score = _nearest(
                segments, meta, scratch, needed, prefix, threshold, words, signature
            )
            rows[at] = row
            scores[at] = score
        if what == ADD or (what == DECIDE and rows[at] < 0):
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
    seen = scratch[_SEEN : _SEEN + 2 * RECENT]
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
                slot = 2 * ((address ^ (address >> 10)) & (RECENT - 1))
                if seen[slot] == stamp and seen[slot + 1] == address:
                    continue
                seen[slot] = stamp
                seen[slot + 1] = address
                if not prepared:
                    prepared = True
                    if m <= 64:
                        masks(scratch, words, 0, m, stamp)
                    else:
                        counts(scratch, words, stamp)
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
        return lcs_short(scratch, m, segment, begin, n, stamp)
    if overlap(scratch, segment, begin, n, stamp) < least:
        return 0
    return lcs_long(meta, scratch, words, segment, begin, n)
