"""The order of training examples."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.steps.training.order import training_order

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=200)


@given(lengths, st.integers(1, 32), st.integers(1, 4), st.integers())
def test_every_epoch_shows_every_example_once(
    sizes: list[int], batch: int, epochs: int, seed: int
) -> None:
    """Over n epochs each example is seen exactly n times."""
    order = training_order(sizes, batch_size=batch, epochs=epochs, seed=seed)
    assert Counter(order) == dict.fromkeys(range(len(sizes)), epochs)


@given(lengths, st.integers(1, 32), st.floats(0.05, 3), st.integers(1, 20))
def test_parts_of_an_epoch_and_max_steps(
    sizes: list[int], batch: int, epochs: float, steps: int
) -> None:
    """A fraction of an epoch is rounded up, max_steps cuts, and nobody is seen twice too often."""
    order = training_order(sizes, batch_size=batch, epochs=epochs, seed=1, max_steps=steps)
    assert len(order) == min(math.ceil(epochs * len(sizes)), steps * batch)
    seen = Counter(order)
    assert max(seen.values()) - min(seen[at] for at in range(len(sizes))) <= 2
    assert max(seen.values()) <= -(-len(order) // len(sizes)) + 1


def test_the_order_is_the_seeds() -> None:
    """The same seed gives the same order, another seed another, and epochs differ."""
    sizes = [(n * 37) % 101 for n in range(100)]
    first = training_order(sizes, batch_size=4, epochs=2, seed=7)
    assert first == training_order(sizes, batch_size=4, epochs=2, seed=7)
    assert first != training_order(sizes, batch_size=4, epochs=2, seed=8)
    assert first[:100] != first[100:]


def test_batches_share_a_length() -> None:
    """Grouping by length keeps padding low: well below that of a random order."""
    sizes = random.Random(2).choices(range(10, 500), k=512)

    def padded(order: list[int]) -> int:
        batches = [order[at : at + 4] for at in range(0, len(order), 4)]
        return sum(4 * max(sizes[index] for index in batch) for batch in batches)

    order = training_order(sizes, batch_size=8, epochs=1, seed=3)
    assert padded(order) < 1.2 * sum(sizes) < 1.3 * sum(sizes) < padded(list(range(512)))


@pytest.mark.parametrize("batch", [1, 2, 3, 6, 8, 32])
def test_steps_hold_several_lengths(batch: int) -> None:
    """A step is no sample of one length, and within it lengths rise."""
    sizes = random.Random(2).choices(range(10, 500), k=40 * batch)
    order = training_order(sizes, batch_size=batch, epochs=1, seed=3)
    steps = [[sizes[at] for at in order[n : n + batch]] for n in range(0, len(order), batch)]
    assert all(step == sorted(step) for step in steps)
    assert steps != sorted(steps), "steps of a group come in random order"
    if batch > 1:
        spans = sorted(step[-1] - step[0] for step in steps)
        assert spans[len(spans) // 2] > 80


@pytest.mark.parametrize(
    ("batch", "times"), [(2, 1.5), (3, 1), (4, 1.5), (6, 1.5), (8, 1.5), (12, 1), (16, 1), (32, 1)]
)
def test_steps_hold_about_as_many_tokens_as_each_other(batch: int, times: float) -> None:
    """Short examples go with long ones: a token's share in a step depends little on its example.

    The loss of a step is a mean over tokens, so where steps differ in tokens, those of a small step
    weigh more. With lengths as skewed as answers' are, the totals vary no more than those of steps
    drawn by chance, or not much more where a step has two runs of neighbours.
    """
    rng = random.Random(5)
    sizes = [40 + min(472, round(rng.lognormvariate(4, 1))) for _ in range(64 * batch)]

    def spread(order: list[int]) -> float:
        totals = [
            sum(sizes[at] for at in order[n : n + batch]) for n in range(0, 64 * batch, batch)
        ]
        return statistics.pstdev(totals)

    order = training_order(sizes, batch_size=batch, epochs=1, seed=3)
    assert spread(order) < times * spread(list(range(64 * batch)))
