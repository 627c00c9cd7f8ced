"""The held-out split: stable by id, about its share, and never near the training split."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct.core.types import Candidate
from selfinstruct.steps.splits import (
    MIN_RECORDS,
    Item,
    SharedPhrases,
    Split,
    near_filters,
    rank,
    split,
    text_of,
)

SCORER = RougeScorer(["rougeL"])


def distinct(count: int) -> list[Item]:
    """Records that share no word."""
    return [Item(f"r{n}", f"alpha{n} beta{n} gamma{n} delta{n}") for n in range(count)]


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    size = min(3, len(words))
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


def near(one: str, other: str) -> bool:
    """The definition, naively: ROUGE-L above 0.7 or 3-gram Jaccard above 0.5."""
    a, b = trigrams(one), trigrams(other)
    return len(a & b) / len(a | b) > 0.5 or SCORER.score(one, other)["rougeL"].fmeasure > 0.7


def made(items: Sequence[Item], share: float = 0.3, train: Sequence[str] = ()) -> Split:
    found = split(items, share, near_filters, train)
    order = [item.id for item in items]
    assert sorted(found.train + found.held_out, key=order.index) == order
    assert list(found.held_out) == [name for name in order if name in set(found.held_out)]
    return found


def test_share_is_kept() -> None:
    """Of many records about the asked share is held out, and none need be moved."""
    found = made(distinct(3000), 0.1)
    assert 240 < len(found.held_out) < 360
    assert found.moved_to_train == 0


def test_membership_follows_from_the_id_alone() -> None:
    """More records, or another order, do not change who is held out."""
    few, many = distinct(500), distinct(1000)
    held = set(made(few).held_out)
    assert set(made(many).held_out) & {item.id for item in few} == held
    assert set(made(few[::-1]).held_out) == held


def test_near_duplicates_are_moved_and_counted() -> None:
    """A chosen record that resembles a training record joins it."""
    items = distinct(100)
    held = made(items).held_out[0]
    twin = next(item for item in items if item.id == held)
    name = next(f"t{n}" for n in range(1000) if rank(f"t{n}") > 0.9 * 2**64)
    found = made([*items, Item(name, twin.text + " more")])
    assert held in found.train
    assert found.moved_to_train == 1


def test_moves_carry_on() -> None:
    """A chosen record that is near a moved one only is moved as well."""
    words = [f"w{n}" for n in range(40)]
    # Each text is the next one shifted by five words of twenty: near its neighbour, and no further.
    texts = [" ".join(words[at : at + 20]) for at in (0, 5, 10)]
    assert near(texts[0], texts[1])
    assert near(texts[1], texts[2])
    assert not near(texts[0], texts[2])
    low = [f"x{n}" for n in range(1000) if rank(f"x{n}") < 0.3 * 2**64][:2]
    high = next(f"x{n}" for n in range(1000) if rank(f"x{n}") > 0.9 * 2**64)
    chain = [Item(name, text) for name, text in zip((high, *low), texts, strict=True)]
    found = made([*distinct(50), *chain])
    assert not set(low) & set(found.held_out)
    assert found.moved_to_train == 2


def test_human_examples_count_as_training_text() -> None:
    """A chosen record near a text that is in training anyway is moved."""
    items = distinct(100)
    held = made(items).held_out
    text = next(item.text for item in items if item.id == held[0])
    found = made(items, train=[text])
    assert held[0] in found.train
    assert found.held_out == held[1:]


def test_one_is_held_out_from_ten_on() -> None:
    """However small the share, ten records give one to test; nine, or a share of 0, give none."""
    assert len(made(distinct(MIN_RECORDS), 1e-9).held_out) == 1
    assert made(distinct(MIN_RECORDS - 1), 1e-9).held_out == ()
    assert made(distinct(1000), 0).held_out == ()


def test_the_one_held_out_is_near_nothing() -> None:
    """The one record that must be held out is the first in the draw without a near-duplicate."""
    items = [Item(f"r{n}", "the very same text") for n in range(20)]
    assert made(items).held_out == ()
    found = made([*items, Item("only", "something else altogether")])
    assert found.held_out == ("only",)


def test_training_is_never_empty() -> None:
    """Whatever the share, a record stays for training."""
    assert len(made(distinct(1), 0.999).train) == 1
    assert len(made(distinct(30), 0.999).train) >= 1
    assert made([], 0.5) == Split(train=(), held_out=(), moved_to_train=0)


def test_text_of_joins_instruction_and_input() -> None:
    """Both count; without an input the instruction stands alone."""
    assert text_of("Do it.", "") == "Do it."
    assert text_of("Do it.", "This.") == "Do it.\nThis."


def test_text_without_words_is_near_its_equal() -> None:
    """Symbols only: an equal text is near, another one is not."""
    phrases = SharedPhrases()
    phrases.add(Candidate(id="a", slot=0, index=0, strategy="", instruction="!!!"))
    same = Candidate(id="b", slot=0, index=0, strategy="", instruction="!!! ")
    other = Candidate(id="c", slot=0, index=0, strategy="", instruction="???")
    assert phrases.check(other) is None
    verdict = phrases.check(same)
    assert verdict is not None
    assert (verdict.neighbour, verdict.score) == ("a", 1.0)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9).map(" ".join)),
    st.floats(0.05, 0.95),
)
def test_nothing_held_out_is_near_training(texts: list[str], share: float) -> None:
    """By rouge_score and a naive Jaccard: no held-out text is near a training text, and a chosen
    text stays out of it unless it must not.
    """
    items = [Item(f"r{n}", text) for n, text in enumerate(texts)]
    found = made(items, share)
    by_id = dict(items)
    for held in found.held_out:
        assert not any(near(by_id[held], by_id[name]) for name in found.train)
    again = split(items, share, lambda: [])
    if not found.moved_to_train and len(found.held_out) > 1:
        assert found.held_out == again.held_out
