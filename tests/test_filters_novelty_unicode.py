"""Novelty on whatever a text can hold: the decisions of rouge_score, through every index."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct.core.types import Candidate
from selfinstruct.steps.filters.compiled_rouge import RougeJoin
from selfinstruct.steps.filters.novelty import Novelty, novel_mask
from selfinstruct.steps.words import TOKENIZERS, unicode_words


class Ours:
    """The unicode tokenizer as rouge_score takes one."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


SCORERS = {"alpaca": RougeScorer(["rougeL"]), "unicode": RougeScorer(["rougeL"], tokenizer=Ours())}
both_tokenizers = pytest.mark.parametrize("tokenizer", ["alpaca", "unicode"])
THRESHOLD = st.sampled_from([0.7, 0.7, 0.5, 0.3, 0.9])

# Every code point there is, halves of surrogate pairs, unassigned ones and nulls included; and
# letters whose lower case, width or composition is another text, next to plain words.
ANYTHING = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)
ODD = st.sampled_from(
    ["\u212a", "\u0130", "\u00df", "\ufb01n", "e\u0301", "\uff21b", "\u1e9e", "\ud83d",
     "\ude00", "\U0001f600", "\u0e01\u0e33", "\u6771\u4eac", "\u0628\u200f\u0639",
     "\x00", "\u200d", "x\u00ady"]
)  # fmt: skip
PLAIN = st.sampled_from(["a", "b", "c", "10", "No", "the"])
PIECES = st.lists(st.one_of(PLAIN, ODD, ANYTHING), max_size=12)
SPACE = st.sampled_from([" ", " ", "", "\u3000", "-", "\n"])


@st.composite
def rows(draw: st.DrawFn) -> list[str]:
    """Texts of arbitrary characters, many of them edited copies of others."""
    made: list[list[str]] = [draw(PIECES)]
    for _ in range(draw(st.integers(0, 7))):
        row = list(draw(st.sampled_from(made))) if draw(st.booleans()) else draw(PIECES)
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(row)))
            row[at : at + draw(st.integers(0, 2))] = draw(
                st.lists(st.one_of(PLAIN, ODD), max_size=2)
            )
        made.append(row)
    return [draw(SPACE).join(row) for row in made]


def by_rouge_score(
    texts: Sequence[str], threshold: float, tokenizer: str
) -> list[tuple[int, float]]:
    """For each text the nearest kept one's place and its score, or (-1, 0.0) where it is kept."""
    kept: list[int] = []
    decided = []
    for at, text in enumerate(texts):
        scores = [SCORERS[tokenizer].score(text, texts[n])["rougeL"].fmeasure for n in kept]
        best = max(scores, default=0.0)
        if best > threshold:
            decided.append((kept[scores.index(best)], best))
        else:
            decided.append((-1, 0.0))
            kept.append(at)
    return decided


def by_the_filter(
    texts: Sequence[str], threshold: float, tokenizer: str
) -> list[tuple[int, float]]:
    """The same by the filter, one candidate after the other."""
    novelty = Novelty(threshold, tokenizer=tokenizer)  # type: ignore[arg-type]
    decided = []
    for at, text in enumerate(texts):
        item = Candidate(id=str(at), slot=at, index=0, strategy="", instruction=text)
        verdict = novelty.check(item)
        if verdict is None:
            novelty.add(item)
        decided.append(
            (-1, 0.0) if verdict is None else (int(verdict.neighbour), verdict.score or 0)
        )
    return decided


def by_the_compiled_index(
    texts: Sequence[str], threshold: float, tokenizer: str
) -> list[tuple[int, float]]:
    """The same by the index for large pools, which counts kept texts only."""
    found, scores = RougeJoin(threshold).decide([TOKENIZERS[tokenizer](text) for text in texts])
    kept = [at for at, row in enumerate(found.tolist()) if row < 0]
    return [
        (kept[row], score) if row >= 0 else (-1, 0.0)
        for row, score in zip(found.tolist(), scores.tolist(), strict=True)
    ]


def by_the_whole_list(
    texts: Sequence[str], threshold: float, tokenizer: str
) -> list[tuple[int, float]]:
    """The same by `novel_mask`."""
    decided = novel_mask(texts, threshold, tokenizer)  # type: ignore[arg-type]
    return list(zip(decided.neighbour.tolist(), decided.score.tolist(), strict=True))


@both_tokenizers
@settings(max_examples=150, deadline=None)
@given(texts=rows(), threshold=THRESHOLD)
def test_any_text_is_decided_as_rouge_score_does(
    texts: list[str], threshold: float, tokenizer: str
) -> None:
    """Kept or not, by whom, how near: the filter, the whole list and the compiled index agree."""
    want = by_rouge_score(texts, threshold, tokenizer)
    assert by_the_filter(texts, threshold, tokenizer) == want
    assert by_the_whole_list(texts, threshold, tokenizer) == want
    assert by_the_compiled_index(texts, threshold, tokenizer) == want


def words_of_any_script() -> list[str]:
    """One word of each of 600 letters all over Unicode, each the same word to our tokenizer."""
    step = 211
    letters = [
        chr(code)
        for code in range(0x100, sys.maxunicode, step)
        if unicodedata.category(chr(code)) in ("Ll", "Lo", "Nd")
    ]
    return [letter for letter in letters if unicode_words(letter) == [letter]][:600]


@both_tokenizers
@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 60), other=st.integers(1, 60), repeats=st.booleans(), data=st.data())
def test_the_boundary_in_any_script(
    tokenizer: str, length: int, other: int, repeats: bool, data: st.DataObject
) -> None:
    """Of F1 at 0.7 on paper, and one word more or less, the side is that of rouge_score's float."""
    alphabet = words_of_any_script() if tokenizer == "unicode" else [f"w{n}" for n in range(600)]
    shuffled = data.draw(st.randoms(use_true_random=False)).sample(alphabet, 180)
    common = round(0.7 * (length + other) / 2)
    for shared in {common - 1, common, common + 1}:
        if not 0 <= shared <= min(length, other):
            continue
        both = [shuffled[0]] * shared if repeats else shuffled[:shared]
        one = both + shuffled[60 : 60 + length - shared]
        two = both + shuffled[120 : 120 + other - shared]
        texts = [" ".join(one), " ".join(two)]
        want = by_rouge_score(texts, 0.7, tokenizer)
        assert by_the_filter(texts, 0.7, tokenizer) == want
        assert by_the_compiled_index(texts, 0.7, tokenizer) == want


@both_tokenizers
@settings(max_examples=8, deadline=None)
@given(data=st.data(), threshold=THRESHOLD)
def test_long_rows_of_any_script(data: st.DataObject, threshold: float, tokenizer: str) -> None:
    """Rows of hundreds of words, with many repeats and parts moved, are decided in the same way."""
    rng = data.draw(st.randoms(use_true_random=False))
    alphabet = [*words_of_any_script()[:150], *(f"w{n}" for n in range(150))]
    base = [rng.choice(alphabet) for _ in range(rng.randint(200, 500))]
    texts = []
    for _ in range(4):
        row = list(base)
        for _ in range(rng.randint(0, 120)):
            at = rng.randrange(len(row))
            row[at : at + rng.randint(0, 4)] = rng.choices(alphabet, k=rng.randint(0, 3))
        cut = rng.randrange(len(row))
        texts.append(" ".join(row[cut:] + row[:cut] if rng.random() < 0.3 else row))
    want = by_rouge_score(texts, threshold, tokenizer)
    assert by_the_filter(texts, threshold, tokenizer) == want
    assert by_the_compiled_index(texts, threshold, tokenizer) == want
