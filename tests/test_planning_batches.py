"""Micro-batches: what they hold, and what they take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.steps.planning.batches import MicroBatch, largest, largest_divisor, micro_batches

LENGTHS = st.lists(st.integers(1, 99), min_size=1, max_size=20)


def test_padding_counts_and_packing_has_none() -> None:
    """Rows are as long as the longest of them; packed, as their mean, rounded up."""
    padded = micro_batches([4, 2, 5, 3, 1], 2)
    assert padded == [MicroBatch(0, 2, 6, 8), MicroBatch(2, 2, 8, 10), MicroBatch(4, 1, 1, 1)]
    assert [(batch.rows, batch.length) for batch in padded] == [(2, 4), (2, 5), (1, 1)]
    packed = micro_batches([4, 2, 5, 3, 1], 2, packed=True)
    assert [batch.positions for batch in packed] == [6, 8, 1]
    assert [(batch.rows, batch.length) for batch in packed] == [(2, 3), (2, 4), (1, 1)]


@given(LENGTHS, st.integers(1, 6), st.booleans())
def test_each_example_is_in_one_micro_batch(lengths: list[int], size: int, packed: bool) -> None:
    """Their places follow one another, none is too large, and no token is lost."""
    batches = micro_batches(lengths, size, packed=packed)
    assert [at for batch in batches for at in batch.places] == list(range(len(lengths)))
    assert max(batch.rows for batch in batches) <= size
    assert sum(batch.tokens for batch in batches) == sum(lengths)
    assert all(batch.tokens <= batch.positions <= batch.rows * batch.length for batch in batches)


@given(LENGTHS, st.integers(1, 6), st.booleans())
def test_the_largest_micro_batch(lengths: list[int], size: int, packed: bool) -> None:
    """No other one has more positions, with its padding or, packed, without."""

    def positions(start: int) -> int:
        part = lengths[start : start + size]
        return sum(part) if packed else len(part) * max(part)

    found = largest(micro_batches(lengths, size, packed=packed))
    assert positions(found.start) == max(map(positions, range(0, len(lengths), size)))


@given(st.integers(1, 64), st.integers(1, 64))
def test_parts_make_up_the_whole_exactly(number: int, limit: int) -> None:
    """Their size divides it, and no larger one within the limit does."""
    size = largest_divisor(number, limit)
    assert number % size == 0
    assert size <= limit
    assert all(number % larger for larger in range(size + 1, min(limit, number) + 1))
