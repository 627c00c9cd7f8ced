"""Ways to choose records: order, distance, coverage, quotas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.steps.embedding.vectors import Vectors, quantized
from selfinstruct.steps.selection import coverage, methods
from selfinstruct.steps.selection.methods import Choice, Quota


def vectors(size: int, seed: int = 0, dimensions: int = 8) -> Vectors:
    """Random unit vectors."""
    rows = np.random.default_rng(seed).normal(size=(size, dimensions)).astype(np.float32)
    return Vectors(quantized(rows))


def cosine(found: Vectors, one: int, other: int) -> float:
    """The cosine of two rows, worked out in whole numbers."""
    a, b = found.rows[one].astype(np.int64), found.rows[other].astype(np.int64)
    return float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))


def choose(method: str, found: Vectors, count: int, quota: Quota) -> Choice:
    """What a method chooses."""
    if method == "first":
        order = methods.draw([str(n) for n in range(len(found))], 7)
        return methods.first(order, count, quota, found, 0.3)
    take = {"k_center": coverage.k_center, "facility_location": coverage.facility_location}[method]
    return take(found, count, quota)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 5), st.integers(1, 4))
def test_every_record_is_chosen_once_or_has_one_reason(
    size: int, count: int, seed: int, groups: int
) -> None:
    """No record is lost or doubled, at most `count` are chosen, and quotas hold."""
    names = [str(n % groups) for n in range(size)]
    for method in ("first", "k_center", "facility_location"):
        choice = choose(method, vectors(size, seed), count, Quota(names, 3))
        assert sorted([*choice.chosen, *choice.reasons]) == list(range(size)), method
        assert 1 <= len(choice.chosen) <= count
        assert max(Counter(names[at] for at in choice.chosen).values()) <= 3
        assert set(choice.reasons.values()) <= set(methods.REASONS)


def test_top_goes_down_the_order_and_leaves_out_what_is_near() -> None:
    """A record nearer than the least distance to one taken is left out, at the distance not."""
    found = vectors(60)
    order = list(range(60))
    choice = methods.first(order, 20, Quota(), found, 0.4)
    for place, at in enumerate(choice.chosen):
        assert all(1 - cosine(found, at, other) >= 0.4 for other in choice.chosen[:place])
    last = choice.chosen[-1]
    for at, reason in choice.reasons.items():
        taken = [other for other in choice.chosen if other < at]
        near = any(1 - cosine(found, at, other) < 0.4 for other in taken)
        assert (reason == methods.TOO_NEAR) == (near and at < last)
    exact = 1 - cosine(found, 0, 1)
    assert methods.first([0, 1], 2, Quota(), found, exact).chosen == [0, 1]
    assert methods.first([0, 1], 2, Quota(), found, exact + 1e-9).chosen == [0]


def test_k_center_takes_the_farthest_each_time() -> None:
    """It makes the choices that a plain search for the farthest record makes."""
    found = vectors(40, seed=3)
    choice = coverage.k_center(found, 12, Quota())
    for place in range(1, 12):
        taken = choice.chosen[:place]
        nearest = {
            at: max(cosine(found, at, other) for other in taken)
            for at in range(40)
            if at not in taken
        }
        assert nearest[choice.chosen[place]] == pytest.approx(min(nearest.values()))


@pytest.mark.parametrize("size", [600, 601])
@pytest.mark.parametrize("equal", [False, True], ids=["all differ", "many are equal"])
def test_k_center_looks_at_few_and_chooses_the_same(
    monkeypatch: pytest.MonkeyPatch, size: int, equal: bool
) -> None:
    """Looking at the 16 farthest only, it makes the choices of looking at all, quotas included."""
    found = vectors(size, seed=9, dimensions=3 if equal else 12)
    names = [str(n % 7) for n in range(size)]
    whole = coverage.k_center(found, 150, Quota(names, 30))
    monkeypatch.setattr(coverage, "FAR", 16)
    assert coverage.k_center(found, 150, Quota(names, 30)) == whole
    nearest = np.full(size, -2.0)
    quota, closed, plain = Quota(names, 30), np.zeros(size, bool), list[int]()
    at = found.middle()
    while len(plain) < 150:
        closed[at] = True
        if quota.allows(at):
            plain.append(at)
            quota.take(at)
            nearest = np.maximum(nearest, found.similarities(at))
        at = int(np.argmin(np.where(closed, np.inf, nearest)))
    assert whole.chosen == plain


def test_facility_location_takes_what_gains_most_each_time() -> None:
    """Lazy greedy makes the choices of plain greedy."""
    found = vectors(30, seed=5)
    near = np.array([[max(0.0, cosine(found, i, j)) for j in range(30)] for i in range(30)])
    choice = coverage.facility_location(found, 8, Quota())
    covered = np.zeros(30)
    for at in choice.chosen:
        gains = np.maximum(near - covered[:, None], 0).sum(axis=0)
        assert gains[at] == pytest.approx(gains.max())
        covered = np.maximum(covered, near[:, at])


def test_a_draw_follows_from_each_id_alone() -> None:
    """More records do not change the order of those that were there; another seed does."""
    few = [f"r{n}" for n in range(50)]
    drawn = [few[at] for at in methods.draw(few, 1)]
    more = [f"x{n}" for n in range(30)] + few
    again = [more[at] for at in methods.draw(more, 1) if more[at] in few]
    assert drawn == again
    assert drawn != [few[at] for at in methods.draw(few, 2)]


def test_records_without_a_score_are_left_out_of_the_order() -> None:
    """The best come first, equals in the given order, those without a score not at all."""
    scores = [1.0, None, 3.0, 3.0, 2.0]
    assert methods.by_score([4, 3, 2, 1, 0], scores, lowest=False) == [3, 2, 4, 0]
    assert methods.by_score([4, 3, 2, 1, 0], scores, lowest=True) == [0, 4, 3, 2]


def test_neighbours_are_those_of_sorting_all() -> None:
    """The most similar rows, of equals the first ones, whatever block a row is in."""
    rows = np.random.default_rng(4).integers(-3, 4, size=(700, 4)).astype(np.int8)
    found = Vectors(rows)
    for row, columns, near in found.neighbours(9):
        all_of_them = found.similarities(row)
        best = sorted(np.argsort(-all_of_them, kind="stable")[:9])
        assert columns.tolist() == best
        assert (near == all_of_them[best]).all()


def test_similarities_do_not_depend_on_what_they_are_computed_next_to() -> None:
    """A block's cosines are bit for bit those of single rows."""
    found = vectors(300, dimensions=384)
    for row, columns, near in found.neighbours(300):
        if row % 50 == 0:
            assert (near == found.similarities(row)[columns]).all()
