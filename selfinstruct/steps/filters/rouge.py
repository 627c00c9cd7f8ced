"""ROUGE-L F1 as rouge_score computes it, from word lists, by a bit-parallel LCS.

Lin (2004), "ROUGE: A Package for Automatic Evaluation of Summaries": with `lcs` the length of the
longest common subsequence, recall is lcs / reference words, precision lcs / text words, and the F1
their harmonic mean. Thresholds are decided on the same floats as rouge_score's, so a pair that sits
exactly on a threshold falls on the same side.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

MAX_WORDS = 10_000  # of a text that filters compare; an LCS takes quadratic time


def fmeasure(lcs: int, reference: int, text: int) -> float:
    """F1 in 0..1 from an LCS length and both word counts; 0 where either has no words."""
    if not lcs:
        return 0.0
    precision = lcs / text
    recall = lcs / reference
    return 2 * precision * recall / (precision + recall)


def rouge_l(reference: Sequence[str], text: Sequence[str]) -> float:
    """ROUGE-L F1 of two word lists, 0..1; symmetric."""
    # Integers, as rapidfuzz compares other things by their hash.
    ids: dict[str, int] = {}
    left = [ids.setdefault(word, len(ids)) for word in reference]
    right = [ids.setdefault(word, len(ids)) for word in text]
    return fmeasure(LCSseq.similarity(left, right), len(left), len(right))


def show(score: float, threshold: float) -> str:
    """`score` with three decimals; with all of them where it is over `threshold` by rounding."""
    shown = f"{score:.3f}"
    return shown if float(shown) > threshold else repr(score)
