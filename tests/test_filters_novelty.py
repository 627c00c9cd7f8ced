"""Novelty: the decisions of rouge_score, its floats at the boundary, and the nearest neighbour."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.filters.compiled_rouge import RougeJoin
from selfinstruct.steps.filters.novelty import (
    MAX_CHARACTERS,
    NOT_NOVEL,
    Novelty,
    compared_text,
    novel_mask,
)
from selfinstruct.steps.filters.rouge import MAX_WORDS, fmeasure, rouge_l, show
from selfinstruct.steps.filters.rouge_index import RougeIndex
from selfinstruct.steps.words import unicode_words

SCORER = RougeScorer(["rougeL"])
# Few words, so that texts overlap and repeat; some without any word for the alpaca tokenizer.
WORD = st.sampled_from(["a", "b", "c", "d", "e", "é", "Я", "字", "-"])
TEXT = st.lists(WORD, max_size=14).map(" ".join)
both_indexes = pytest.mark.parametrize("make", [RougeIndex, RougeJoin])
THRESHOLD = st.sampled_from([0.7, 0.5, 0.3, 0.05, 0.9, 1.0, 2 / 3])


class UnicodeTokenizer:
    """Our tokenizer as rouge_score takes one."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


SCORERS = {"alpaca": SCORER, "unicode": RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())}


def candidate(text: str, *, input: str = "", id: str = "c") -> Candidate:
    return Candidate(id=id, slot=0, index=0, strategy="", instruction=text, input=input)


def expected(
    scorer: RougeScorer, texts: Sequence[str], text: str, threshold: float
) -> tuple[int, float] | None:
    """What rouge_score says: the first of the highest scores, if it is above the threshold."""
    scores = [scorer.score(text, other)["rougeL"].fmeasure for other in texts]
    best = max(scores, default=0.0)
    return (scores.index(best), best) if best > threshold else None


def found(verdict: Verdict | None) -> tuple[int, float | None] | None:
    return None if verdict is None else (int(verdict.neighbour), verdict.score)


@pytest.mark.parametrize("tokenizer", ["alpaca", "unicode"])
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT, max_size=12), threshold=THRESHOLD)
def test_decides_as_rouge_score_does(texts: list[str], threshold: float, tokenizer: str) -> None:
    """Kept or not, by whom and how near: the same as scoring every pair with rouge_score.

    Dropped texts block nothing, so one wrong decision would change those that follow.
    """
    novelty = Novelty(threshold, tokenizer=tokenizer)  # type: ignore[arg-type]
    pool: list[str] = []
    for text in texts:
        want = expected(SCORERS[tokenizer], pool, text, threshold)
        assert found(novelty.check(candidate(text))) == want
        if want is None:
            novelty.add(candidate(text, id=str(len(pool))))
            pool.append(text)


@both_indexes
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=150), min_size=1, max_size=8),
    st.data(),
)
def test_signatures_of_every_width_prune_nothing_that_is_near(
    make: type[RougeIndex | RougeJoin], numbers: list[list[int]], data: st.DataObject
) -> None:
    """Edited copies of texts of any length are found: in numpy's tables with wider signatures, and
    in the compiled index by the masks of 64 words and by blocks of them.
    """
    threshold = data.draw(THRESHOLD)
    index = make(threshold)
    texts = [[f"w{number}" for number in row] for row in numbers]
    for text in texts:
        index.add(text)
    words = list(data.draw(st.sampled_from(texts)))
    for _ in range(data.draw(st.integers(0, len(words) // 2))):
        del words[data.draw(st.integers(0, len(words) - 1))]
    words += data.draw(st.lists(st.sampled_from(["new", "w1", "w2"]), max_size=len(words) + 1))
    scores = [rouge_l(text, words) for text in texts]
    near = index.nearest(words)
    if max(scores) > threshold:
        assert near is not None
        assert (near.position, near.score) == (scores.index(max(scores)), max(scores))
    else:
        assert near is None


@both_indexes
@pytest.mark.parametrize("total", range(2, 61))
def test_the_boundary_is_rouge_scores_own_float(
    total: int, make: type[RougeIndex | RougeJoin]
) -> None:
    """Where F1 is 0.7 on paper, the side is that of rouge_score's float, for any two lengths."""
    for length in range(1, total):
        other = total - length
        common = round(0.7 * total / 2)
        if common > min(length, other):
            continue
        words = ["x"] * common + ["y"] * (length - common)
        others = ["x"] * common + ["z"] * (other - common)
        index = make(0.7)
        index.add(others)
        score = SCORER.score(" ".join(words), " ".join(others))["rougeL"].fmeasure
        assert (index.nearest(words) is not None) == (score > 0.7)
        assert rouge_l(words, others) == score


@both_indexes
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_pairs_just_above_the_threshold_survive_the_pruning(
    threshold: float, make: type[RougeIndex | RougeJoin]
) -> None:
    """Of two texts without a repeated word, each common word too few or enough decides alone.

    Here the signatures say the most they can, so a bound too tight would lose a pair.
    """
    for length in range(2, 200, 7):
        for other in range(max(2, length // 2), length * 2, 11):
            needed = next(
                (
                    c
                    for c in range(min(length, other) + 1)
                    if fmeasure(c, length, other) > threshold
                ),
                None,
            )
            if needed is None:
                continue
            for common, near in ((needed, True), (needed - 1, False)):
                shared = [f"c{number}" for number in range(common)]
                index = make(threshold)
                index.add(shared + [f"a{number}" for number in range(length - common)])
                words = shared + [f"b{number}" for number in range(other - common)]
                assert (index.nearest(words) is not None) is near


def test_kept_at_exactly_the_threshold() -> None:
    """Seven of ten words in common are kept at 0.7; eight are not."""
    novelty = Novelty(0.7)
    novelty.add(candidate("a b c d e f g h i j", id="s1"))
    assert novelty.check(candidate("a b c d e f g x y z")) is None
    verdict = novelty.check(candidate("a b c d e f g h y z"))
    assert verdict is not None
    assert (verdict.reason, verdict.neighbour) == (NOT_NOVEL, "s1")
    assert verdict.detail == "ROUGE-L 0.800 with s1, over 0.7"


def test_the_detail_shows_a_score_that_is_over_by_rounding() -> None:
    """A score that three decimals would round to the threshold is shown in full."""
    assert show(0.7000000000000001, 0.7) == "0.7000000000000001"
    assert show(0.71, 0.7) == "0.710"


def test_the_best_neighbour_is_named_and_the_earliest_of_equals() -> None:
    """Among several above the threshold the nearest is named; of two equals the first."""
    novelty = Novelty(0.5)
    for id, text in [("far", "a b c x y"), ("first", "a b c d x"), ("second", "x a b c d")]:
        novelty.add(SeedTask(id=id, instruction=text, output="o"))
    verdict = novelty.check(candidate("a b c d"))
    assert verdict is not None
    assert verdict.neighbour == "first"


def test_words_in_another_order_are_novel() -> None:
    """ROUGE-L is about subsequences: the same words backwards are far."""
    novelty = Novelty(0.7)
    novelty.add(candidate("one two three four five six"))
    assert novelty.check(candidate("six five four three two one")) is None


def test_text_without_words_is_near_nothing() -> None:
    """No words, no F1: empty text and, for the alpaca tokenizer, other scripts are kept."""
    novelty = Novelty(0.01, tokenizer="alpaca")
    for text in ("", "Привет мир", "😀"):
        assert novelty.check(candidate(text)) is None
        novelty.add(candidate(text))
    assert Novelty(0.7).check(candidate("")) is None


def test_other_scripts_count_with_the_unicode_tokenizer() -> None:
    """With the unicode tokenizer a copy in Cyrillic or Chinese is found."""
    novelty = Novelty(0.7)
    novelty.add(candidate("Назови три причины гулять каждый день", id="ru"))
    novelty.add(candidate("请把下面的句子翻译成英文", id="zh"))
    for text, id in [
        ("НАЗОВИ три причины гулять почаще, каждый день!", "ru"),
        ("请把上面的句子翻译成英文。", "zh"),
    ]:
        verdict = novelty.check(candidate(text))
        assert verdict is not None
        assert verdict.neighbour == id


def test_field_says_whether_inputs_count() -> None:
    """The same instruction with another input is novel only where inputs are compared."""
    first = candidate("Translate the sentence", input="The weather is nice in May", id="1")
    second = candidate("Translate the sentence", input="All our cats sleep on old sofas")
    for field, novel in [("instruction", False), ("instruction+input", True)]:
        novelty = Novelty(0.7, field)  # type: ignore[arg-type]
        novelty.add(first)
        assert (novelty.check(second) is None) is novel


def test_check_remembers_nothing() -> None:
    """A candidate that was only checked blocks neither itself nor others."""
    novelty = Novelty(0.7)
    assert novelty.check(candidate("a b c d e")) is None
    assert novelty.check(candidate("a b c d e")) is None


def test_characters_past_the_cap_do_not_count() -> None:
    """A text is cut before it is split into words, whichever field is compared."""
    for field in ("instruction", "instruction+input"):
        item = candidate("x" * MAX_CHARACTERS + "y", input="z")
        assert compared_text(item, field) == "x" * MAX_CHARACTERS  # type: ignore[arg-type]


@both_indexes
def test_words_past_the_cap_do_not_count(make: type[RougeIndex | RougeJoin]) -> None:
    """Only the first `MAX_WORDS` words are compared, so two long texts cost no minutes."""
    index = make(0.7)
    begin = time.process_time()
    index.add(["same"] * MAX_WORDS + ["x"] * 400_000)
    near = index.nearest(["same"] * MAX_WORDS + ["y"] * 400_000)
    assert near is not None
    assert near.score == 1.0
    assert time.process_time() - begin < 5


@both_indexes
def test_a_large_pool_is_searched_in_well_under_a_millisecond_or_so(
    make: type[RougeIndex | RougeJoin],
) -> None:
    """Pruning leaves few true comparisons: a thousand checks against 20,000 texts are quick."""
    index = make(0.7)
    state = 1
    texts = []
    for _ in range(21_000):
        words = []
        for _ in range(10):
            state = state * 1103515245 % 2147483648 + 12345
            words.append(f"w{(state >> 8) % 5000}")
        texts.append(words)
    for text in texts[:20_000]:
        index.add(text)
    begin = time.process_time()
    near = [index.nearest(text) for text in texts[20_000:]]
    assert time.process_time() - begin < 5  # comparing every pair takes minutes
    assert not any(near)


@pytest.mark.parametrize("tokenizer", ["alpaca", "unicode"])
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXT, max_size=12), threshold=THRESHOLD)
def test_a_whole_list_is_decided_as_one_after_the_other(
    texts: list[str], threshold: float, tokenizer: str
) -> None:
    """`novel_mask` keeps, drops, and names neighbours by their place in the list, as the filter."""
    decisions = novel_mask(iter(texts), threshold, tokenizer)  # type: ignore[arg-type]
    novelty = Novelty(threshold, tokenizer=tokenizer)  # type: ignore[arg-type]
    for row, text in enumerate(texts):
        near = found(novelty.check(candidate(text)))
        assert decisions.kept[row] == (near is None)
        assert (decisions.neighbour[row], decisions.score[row]) == (near or (-1, 0.0))
        if near is None:
            novelty.add(candidate(text, id=str(row)))
