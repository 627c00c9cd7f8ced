"""Micro-batches: which examples go through the model together, and how many positions that takes.

The plan counts with them, the trainer paces itself by them, and the largest one is what is tried
before the first step of several processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class MicroBatch(msgspec.Struct, frozen=True):
    """`rows` examples in training order, from the one at place `start` on.

    `tokens` are the examples' own, `positions` those that are computed, padding included.
    """

    start: int
    rows: int
    tokens: int
    positions: int

    @property
    def length(self) -> int:
        """Positions of one row; of a packed micro-batch, those of its mean example, rounded up."""
        return -(-self.positions // self.rows)

    @property
    def places(self) -> range:
        """Where its examples are in training order."""
        return range(self.start, self.start + self.rows)


def micro_batches(lengths: Sequence[int], size: int, *, packed: bool = False) -> list[MicroBatch]:
    """The micro-batches of up to `size` examples, given their `lengths` in training order.

    Rows are padded to the longest of them; `packed` ones lie in one row without padding.
    """
    batches = []
    for start in range(0, len(lengths), size):
        part = lengths[start : start + size]
        tokens = sum(part)
        padded = tokens if packed else len(part) * max(part)
        batches.append(MicroBatch(start, len(part), tokens, padded))
    return batches


def largest(batches: Sequence[MicroBatch]) -> MicroBatch:
    """The first of those with the most positions, and so with the most memory."""
    return max(batches, key=lambda batch: batch.positions)


def largest_divisor(number: int, limit: int) -> int:
    """The largest size, not above `limit`, of parts that make up `number` exactly."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)
