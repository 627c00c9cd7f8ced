"""The longest common subsequence of two word lists, compiled, by 64 words at a time (Hyyro, 2004).

One text is prepared in the scratch space (`masks` up to 64 words, `counts` for longer ones), and
stored texts are held against it. `stamp` is a number that no earlier text had: it says which slots
of the scratch space are this text's, so that none has to be cleared.
"""

from __future__ import annotations

import numpy as np

from selfinstruct.steps.filters.compiled import STAMP, Array, compiled, ones, word_at
from selfinstruct.steps.filters.compiled_join import Ids
from selfinstruct.steps.filters.rouge import MAX_WORDS

# The scratch space: carries, the masks of 64 words, the counts of a long text.
_MASK_SLOTS, _COUNT_SLOTS = 256, 1 << 15
_CARRY = 0
_MASKS = _CARRY + MAX_WORDS
_COUNTS = _MASKS + 2 * _MASK_SLOTS
LCS_SCRATCH = _COUNTS + 2 * _COUNT_SLOTS


@compiled
def masks(scratch: Array, words: Ids, begin: int, end: int, stamp: int) -> None:
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
    """The places of `word` among those of `masks`."""
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
def lcs_short(scratch: Array, m: int, segment: Array, begin: int, n: int, stamp: int) -> int:
    """LCS with a text of up to 64 words, whose masks are ready: V = (V + U) | (V - U)."""
    open_places = -1
    for at in range(n):
        matched = open_places & _mask(scratch, word_at(segment, begin, at), stamp)
        open_places = (open_places + matched) | (open_places - matched)
    if m < 64:
        open_places |= -1 << m
    return 64 - ones(open_places)


@compiled
def lcs_long(meta: Array, scratch: Array, words: Ids, segment: Array, begin: int, n: int) -> int:
    """LCS with a text of more than 64 words, by blocks of 64; one carry a word between them."""
    m = len(words)
    for at in range(n):
        scratch[_CARRY + at] = 0
    lcs = 0
    for block in range(0, m, 64):
        end = min(block + 64, m)
        meta[STAMP] += 1
        stamp = meta[STAMP]
        masks(scratch, words, block, end, stamp)
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
def counts(scratch: Array, words: Ids, stamp: int) -> None:
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
def overlap(scratch: Array, segment: Array, begin: int, n: int, stamp: int) -> int:
    """How many words, as bags, a stored text shares with that of `counts`."""
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
