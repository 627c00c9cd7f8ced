"""The pool of novelty: two indexes with the same decisions, and the change between them."""

from __future__ import annotations

import random
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct.steps.filters import compiled, index_pool
from selfinstruct.steps.filters.compiled import WordIds
from selfinstruct.steps.filters.compiled_rouge import RougeJoin
from selfinstruct.steps.filters.index_pool import SWITCH, IndexPool, compiling
from selfinstruct.steps.filters.novelty import novel_mask
from selfinstruct.steps.filters.rouge_index import Near, RougeIndex

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=90)
THRESHOLD = st.sampled_from([0.7, 0.5, 0.3, 0.05, 0.9, 1.0, 2 / 3])


def made_up(count: int, seed: int, *, words: int = 3000, longest: int = 14) -> list[list[str]]:
    """Texts of words with falling frequencies, a third of them edited copies of earlier ones."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.3:
            text = list(rng.choice(texts))
            for _ in range(rng.randint(0, 1 + len(text) // 3)):
                text.insert(rng.randint(0, len(text)), f"w{int(words ** rng.random())}")
                del text[rng.randrange(len(text))]
        else:
            text = [f"w{int(words ** rng.random())}" for _ in range(rng.randint(1, longest))]
        texts.append(text)
    return texts


def in_order(index: RougeIndex | IndexPool, texts: list[list[str]]) -> list[Near | None]:
    """What the index says of each text, those near nothing being added."""
    found = []
    for text in texts:
        near = index.nearest(text)
        if near is None:
            index.add(text)
        found.append(near)
    return found


def novelty_pool() -> IndexPool:
    return IndexPool(RougeIndex(0.7), "rouge", 0.7)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(WORDS, max_size=10), threshold=THRESHOLD, learned=st.lists(WORDS, max_size=3))
def test_both_indexes_decide_alike(
    texts: list[list[str]], threshold: float, learned: list[list[str]]
) -> None:
    """One by one or as a whole list, whatever words were learnt first: the same neighbours."""
    join = RougeJoin(threshold)
    join.learn(learned)
    rows, scores = join.decide(texts)
    found = [
        None if row < 0 else Near(row, score)
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
    assert found == in_order(RougeIndex(threshold), texts)


def test_whole_lists_are_decided_as_rouge_score_does_in_any_order() -> None:
    """Every pair scored by rouge_score gives the same decisions, and again when permuted."""
    scorer = RougeScorer(["rougeL"])
    texts = [" ".join(words) for words in made_up(250, seed=2)]
    compiling("rouge").result()
    for seed in (None, 1):
        if seed is not None:
            random.Random(seed).shuffle(texts)
        join = RougeJoin(0.7)
        rows, scores = join.decide([text.split() for text in texts])
        kept: list[str] = []
        for text, row, score in zip(texts, rows.tolist(), scores.tolist(), strict=True):
            found = [scorer.score(text, other)["rougeL"].fmeasure for other in kept]
            best = max(found, default=0.0)
            if best > 0.7:
                assert (row, score) == (found.index(best), best)
            else:
                assert row == -1
                kept.append(text)
        assert 0 < len(kept) < len(texts)


def test_the_change_to_the_compiled_index_changes_nothing() -> None:
    """Before, during and after the move the decisions are those of the numpy index alone."""
    compiling("rouge").result()
    texts = made_up(2 * SWITCH + 3000, seed=3)
    pool = novelty_pool()
    assert in_order(pool, texts) == in_order(RougeIndex(0.7), texts)
    assert pool.compiled


def test_a_small_pool_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a few thousand texts numba is not even imported."""
    monkeypatch.setattr(index_pool, "compiling", None)  # calling it would fail
    pool = novelty_pool()
    for number in range(SWITCH - 1):
        pool.add([f"w{number}"])
    assert not pool.compiled
    assert novel_mask(["a b c", "a b c"]).kept.tolist() == [True, False]


def test_without_numba_decisions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the extra decides the same, by the numpy index."""
    texts = [" ".join(words) for words in made_up(SWITCH + 500, seed=4)]
    with_numba = novel_mask(texts)
    monkeypatch.setattr(index_pool, "find_spec", lambda name: None)
    monkeypatch.setattr(index_pool, "compiling", None)
    without = novel_mask(texts)
    for one, other in zip(with_numba, without, strict=True):
        assert one.tolist() == other.tolist()


def test_a_broken_numba_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numba cannot be imported or cannot compile, the run goes on and says why."""
    broken: Future[type[RougeJoin]] = Future()
    broken.set_exception(ImportError("Numba needs NumPy 2.3 or less"))
    monkeypatch.setattr(index_pool, "compiling", lambda kind: broken)
    pool = novelty_pool()
    for number in range(SWITCH - 1):
        pool.add([f"w{number}", "x"])
    with pytest.warns(RuntimeWarning, match=r"slower index.*Numba needs NumPy"):
        pool.add(["last", "x"])
    pool.add(["not", "again"])  # warnings are errors here
    novelty_pool().decide([["a"]] * SWITCH)
    assert pool.nearest(["w9", "x"]) == Near(9, 1.0)


def test_a_growing_arena_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many segments and tables each text is still found, and named by its place."""
    monkeypatch.setattr(compiled, "FIRST_SEGMENT", 1 << 17)
    join = RougeJoin(0.7)
    texts = [[f"a{number}", f"b{number // 3}", f"c{number % 97}"] for number in range(40_000)]
    join.add_all(texts)
    assert join._meta[compiled.SEGMENT] >= 2
    assert join._meta[compiled.TABLES] >= 2
    assert len(join) == len(texts)
    for number in range(0, len(texts), 7):
        assert join.nearest(texts[number]) == Near(number, 1.0)


def test_words_keep_their_numbers_over_dictionaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many dictionaries the words take, each has one number, and they count up."""
    monkeypatch.setattr(compiled, "_GENERATION", 10)
    ids = WordIds()
    ids.learn([["b", "a", "a"]])
    assert (ids["a"], ids["b"]) == (0, 1)
    words = ["a", "b"] + [f"w{number}" for number in range(40)]
    assert [ids[word] for word in words] == list(range(42))
    assert [ids[word] for word in words] == list(range(42))


def test_machine_code_is_kept_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SELFINSTRUCT_CACHE` holds it; where nothing can be written there, memory does."""
    monkeypatch.setenv("SELFINSTRUCT_CACHE", f"{tmp_path}/cache")
    folder = compiled._cache_folder()
    assert folder is not None
    for kept in (folder, None):
        monkeypatch.setattr(compiled, "_FOLDER", kept)
        assert compiled.compiled(_one_more)(1) == 2
    assert list(folder.rglob("*.nbi"))
    blocked = folder / "file"
    blocked.touch()
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(blocked))
    assert compiled._cache_folder() is None


def _one_more(number: int) -> int:
    return number + 1
