"""Near-duplicates: what is rejected, how sure the bands are, and that nothing is random."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.types import Candidate
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.sketch_book import SketchBook
from selfinstruct.steps.filters import index_pool
from selfinstruct.steps.filters.compiled_jaccard import GramJoin
from selfinstruct.steps.filters.index_pool import SWITCH
from selfinstruct.steps.filters.jaccard_index import (
    LONG,
    RECALL,
    Bander,
    GramIndex,
    Grams,
    bands_and_rows,
    grams,
)
from selfinstruct.steps.filters.minhash import NEAR_DUPLICATE, NearDuplicate, near_mask
from selfinstruct.steps.words import unicode_words


def candidate(output: str, *, instruction: str = "", input: str = "", id: str = "c") -> Candidate:
    return Candidate(
        id=id, slot=0, index=0, strategy="", instruction=instruction, input=input, output=output
    )


def jaccard(one: str, other: str, size: int = 3) -> float:
    left, right = grams(unicode_words(one), size), grams(unicode_words(other), size)
    return len(left & right) / len(left | right) if left | right else 0.0


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.99, 1.0])
def test_bands_reach_the_recall_at_every_threshold(threshold: float) -> None:
    """The formula of banding gives at least 99% at the threshold, with the most rows that do."""
    bands, rows = bands_and_rows(threshold)
    assert 1 - (1 - threshold**rows) ** bands >= RECALL
    if rows > 1:
        assert bands * rows <= 140
        assert 1 - (1 - threshold**rows) ** (bands - 1) < RECALL or bands == 1


def test_the_default_bands() -> None:
    """At 0.7: 26 bands of 5 rows, one band more than would miss the recall."""
    assert bands_and_rows(0.7) == (26, 5)


@pytest.mark.parametrize(
    ("text", "size", "count"),
    [("a b c d", 3, 2), ("a b c", 3, 1), ("a b", 3, 1), ("a", 3, 1), ("", 3, 0), ("a b a b", 2, 2)],
)
def test_short_texts_have_shorter_grams(text: str, size: int, count: int) -> None:
    """A text of fewer words than an n-gram is one shorter n-gram; no words, no n-grams."""
    assert len(grams(text.split(), size)) == count


def edited(rng: random.Random, words: list[str], edits: int) -> list[str]:
    """`words` with some replaced by words that occur nowhere else."""
    out = list(words)
    for at in rng.sample(range(len(out)), edits):
        out[at] = f"x{rng.randrange(10**9)}"
    return out


both_indexes = pytest.mark.parametrize("make", [GramIndex, GramJoin])


def index(
    make: type[GramIndex | GramJoin], threshold: float, ngram: int = 3
) -> GramIndex | GramJoin:
    return make(threshold, ngram, Bander(threshold, ngram))


@both_indexes
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(("length", "pairs", "least"), [(100, 100, 100), (900, 100, 97)])
def test_pairs_just_above_the_threshold_are_found(
    make: type[GramIndex | GramJoin], threshold: float, length: int, pairs: int, least: int
) -> None:
    """Of pairs above the threshold, most of them barely, short ones are all found, and of long
    ones, which go by bands, nearly all.
    """
    rng = random.Random(5)
    near = index(make, threshold)
    others: list[list[str]] = []
    while len(others) < pairs:
        words = [f"w{rng.randrange(10**9)}" for _ in range(length)]
        other = edited(rng, words, int((length - 2) * (1 - threshold) / (1 + threshold) / 3))
        if jaccard(" ".join(words), " ".join(other)) >= threshold:
            near.add(words)
            others.append(other)
    found = [near.nearest(words) for words in others]
    assert sum(one is not None for one in found) >= least
    assert all(one is None or one.position == at for at, one in enumerate(found))


@both_indexes
@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from("abcde"), max_size=40), max_size=10),
    threshold=st.sampled_from([0.05, 0.3, 0.5, 2 / 3, 0.7, 0.9, 1.0]),
    ngram=st.integers(1, 10),
)
def test_short_texts_are_decided_as_by_measuring_every_pair(
    make: type[GramIndex | GramJoin], texts: list[list[str]], threshold: float, ngram: int
) -> None:
    """Kept or not, by whom and how near: as if each text were compared with all kept ones."""
    near, kept = index(make, threshold, ngram), list[list[str]]()
    for words in texts:
        scores = [jaccard(" ".join(words), " ".join(other), ngram) for other in kept]
        best = max(scores, default=0.0)
        found = near.nearest(words)
        if best >= threshold:
            assert found == (scores.index(best), best)
        else:
            assert found is None
            near.add(words)
            kept.append(words)


@both_indexes
@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9])
def test_texts_of_few_words_are_decided_as_by_measuring_every_pair(
    make: type[GramIndex | GramJoin], threshold: float
) -> None:
    """Also where rare n-grams are shared by most texts, of which few are near one another."""
    rng, texts = random.Random(3), list[list[str]]()
    for _ in range(150):
        words = rng.choices([f"w{n}" for n in range(12)], k=rng.randint(20, 120))
        if texts and rng.random() < 0.6:
            base = rng.choice(texts)
            words = edited(rng, base, rng.randint(0, len(base) // 6))
        texts.append(words)
    near = index(make, threshold, 3)
    for at, words in enumerate(texts):
        scores = [jaccard(" ".join(words), " ".join(other)) for other in texts[:at]]
        best = max(scores, default=0.0)
        assert near.nearest(words) == ((scores.index(best), best) if best >= threshold else None)
        near.add(words)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([0.3, 0.7, 0.95]))
def test_both_indexes_decide_alike(data: st.DataObject, threshold: float) -> None:
    """Texts on both sides of the length from which bands are used, alone and as a whole list."""
    rng = data.draw(st.randoms(use_true_random=False))
    texts: list[list[str]] = []
    for _ in range(12):
        if texts and rng.random() < 0.6:
            words = list(rng.choice(texts))
            cut = rng.randrange(1 + len(words) // 4)
            texts.append(edited(rng, words, rng.randrange(1 + len(words) // 30))[cut:])
        else:
            texts.append([f"w{rng.randrange(5000)}" for _ in range(rng.randrange(2 * LONG))])
    small, join = index(GramIndex, threshold), index(GramJoin, threshold)
    assert isinstance(join, GramJoin)
    expected = []
    for words in texts:
        found = small.nearest(words)
        if found is None:
            small.add(words)
        expected.append((-1, 0.0) if found is None else tuple(found))
    rows, scores = join.decide(texts)
    assert list(zip(rows.tolist(), scores.tolist(), strict=True)) == expected


def test_whole_lists_and_the_change_to_the_compiled_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """`near_mask`, the filter, and the filter without numba make the same decisions."""
    rng = random.Random(7)
    texts: list[str] = []
    for _ in range(SWITCH + 1500):
        words = [f"w{int(4000 ** rng.random())}" for _ in range(rng.randint(3, 20))]
        if texts and rng.random() < 0.3:
            words = edited(rng, rng.choice(texts).split(), rng.randint(0, 2))
        texts.append(" ".join(words))
    decisions = near_mask(texts)
    index_pool.compiling("jaccard").result()
    for numba in (True, False):
        if not numba:
            monkeypatch.setattr(index_pool, "find_spec", lambda name: None)
        near = NearDuplicate()
        for at, text in enumerate(texts):
            verdict = near.check(candidate(text))
            assert (verdict is None) == decisions.kept[at]
            if verdict is None:
                near.add(candidate(text, id=str(at)))
            else:
                assert verdict.neighbour == str(decisions.neighbour[at])
                assert verdict.score == decisions.score[at]
        assert near._pool.compiled is numba


def test_sketches_of_long_texts_are_kept_over_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that is opened again has the bands: none is made anew, and verdicts are the same.

    Other settings have bands of their own, and short texts have none.
    """
    rng = random.Random(9)
    words = [f"w{rng.randrange(10**6)}" for _ in range(2 * LONG)]
    text, copy = " ".join(words), " ".join(edited(rng, words, 10))
    path = tmp_path / "run.db"
    with Ledger(path) as ledger:
        near = NearDuplicate(0.7, 3, SketchBook(ledger))
        near.add(candidate("a short one"))
        near.add(candidate(text, id="long"))
        first = near.check(candidate(copy))
    made: list[int] = []
    make = Bander.__call__

    def counted(self: Bander, found: Grams) -> tuple[int, ...]:
        made.append(len(found))
        return make(self, found)

    monkeypatch.setattr(Bander, "__call__", counted)
    with Ledger(path) as ledger:
        assert ledger.db.execute("SELECT count(*) FROM sketches").fetchone()[0] == 2
        near = NearDuplicate(0.7, 3, SketchBook(ledger))
        near.add(candidate(text, id="long"))
        again = near.check(candidate(copy))
        assert made == []
        NearDuplicate(0.7, 2, SketchBook(ledger)).add(candidate(text))
        assert len(made) == 1
    assert first == again
    assert first is not None
    assert first.neighbour == "long"


def test_words_past_what_an_n_gram_can_hold_are_hashed() -> None:
    """N-grams of very many different words are told apart as well."""
    join = index(GramJoin, 0.7)
    join.learn([[f"w{number}" for number in range(530_000)]])
    texts = [[f"w{number}" for number in range(start, start + 20)] for start in (5, 529_900)]
    join.add_all(texts)
    for at, words in enumerate(texts):
        assert join.nearest(words) == (at, 1.0)
        assert join.nearest(words[::-1]) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), max_size=12), max_size=8),
    st.sampled_from([0.3, 0.5, 0.7, 1.0]),
)
def test_what_is_rejected_is_truly_near(texts: list[list[str]], threshold: float) -> None:
    """Each verdict's score is the exact Jaccard similarity with its neighbour, from the threshold
    up: nothing is rejected by an estimate.
    """
    near = NearDuplicate(threshold)
    for at, words in enumerate(texts):
        text = " ".join(words)
        verdict = near.check(candidate(text))
        if verdict is not None:
            other = " ".join(texts[int(verdict.neighbour)])
            assert verdict.reason == NEAR_DUPLICATE
            assert verdict.score == jaccard(text, other)
            assert verdict.score >= threshold
        near.add(candidate(text, id=str(at)))


def test_a_text_is_found_in_lists_that_others_filled_before() -> None:
    """Hundreds of farther texts that share its n-grams do not hide the nearest one."""
    rng = random.Random(3)
    words = [f"w{number}" for number in range(40)]
    near = NearDuplicate(0.3)
    for number in range(300):
        near.add(candidate(" ".join(edited(rng, words, 3)), id=f"far{number}"))
    near.add(candidate(" ".join([*words, "end"]), id="nearest"))
    verdict = near.check(candidate(" ".join(words)))
    assert verdict is not None
    assert verdict.neighbour == "nearest"


def test_equal_sets_are_always_found() -> None:
    """Texts with the same n-grams share every band, whatever the threshold."""
    for threshold in (0.02, 0.7, 1.0):
        near = NearDuplicate(threshold)
        near.add(candidate("Ten words that make quite a sensible sentence of text", id="1"))
        verdict = near.check(candidate("ten words, that make quite a sensible sentence of text!"))
        assert verdict is not None
        assert (verdict.neighbour, verdict.score) == ("1", 1.0)


def test_rejected_at_exactly_the_threshold() -> None:
    """Four of five 3-grams shared is 0.8: rejected at 0.8, kept at 0.81."""
    first, second = "a b c d e f", "a b c d e f g"
    assert jaccard(first, second) == 0.8
    for threshold, rejected in [(0.8, True), (0.81, False)]:
        near = NearDuplicate(threshold)
        near.add(candidate(first))
        assert (near.check(candidate(second)) is not None) is rejected


def test_the_most_similar_is_named_and_the_earliest_of_equals() -> None:
    """Among several neighbours the most similar is named, of equals the first."""
    near = NearDuplicate(0.3)
    base = " ".join("abcdefghijklmnop")
    near.add(candidate(base + " q r s", id="far"))
    near.add(candidate(base, id="first"))
    near.add(candidate(base, id="second"))
    verdict = near.check(candidate(base))
    assert verdict is not None
    assert verdict.neighbour == "first"


def test_instruction_input_and_output_count_together() -> None:
    """A new instruction over the same long input and output is a near-duplicate."""
    text = " ".join(f"w{number}" for number in range(60))
    near = NearDuplicate(0.7)
    near.add(candidate(text, instruction="Summarise this text", input=text[::-1], id="1"))
    verdict = near.check(candidate(text, instruction="Make it shorter", input=text[::-1]))
    assert verdict is not None
    assert near.check(candidate("Nothing of the kind", instruction="Make it shorter")) is None


def test_text_without_words_is_near_nothing() -> None:
    """Two texts of emoji only are not duplicates of each other."""
    near = NearDuplicate(0.7)
    near.add(candidate("😀 😀"))
    assert near.check(candidate("😀 😀")) is None


def test_bands_are_the_same_in_every_process() -> None:
    """Which pairs are looked at depends on the texts alone, not on Python's hash seed."""
    program = (
        "from selfinstruct.steps.filters.jaccard_index import Bander, grams\n"
        "print(Bander(0.7, 3)(grams('one two three four five'.split(), 3)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().startswith("(")


def test_too_low_a_threshold_is_an_error_of_the_recipe() -> None:
    """A threshold that no sane number of bands can serve is refused, with the way out."""
    with pytest.raises(RecipeError, match=r"minhash\.threshold is 0\.01: must be at least 0\.02"):
        NearDuplicate(0.01)
