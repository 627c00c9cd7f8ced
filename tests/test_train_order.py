"""The order of training examples."""

from __future__ import annotations

import math
from collections import Counter

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
    sizes = [10 + (n * 7919) % 400 for n in range(512)]

    def padded(order: list[int]) -> int:
        batches = [order[at : at + 8] for at in range(0, len(order), 8)]
        return sum(len(batch) * max(sizes[index] for index in batch) for batch in batches)

    order = training_order(sizes, batch_size=8, epochs=1, seed=3)
    assert padded(order) < 1.2 * sum(sizes)
    assert padded(list(range(512))) > 1.5 * sum(sizes)
    firsts = [sizes[order[at]] for at in range(0, 128, 8)]
    assert firsts != sorted(firsts), "batches of a group come in random order"
