"""The order in which examples are trained on: a pure function, so that a resumed run repeats it.

Examples of similar length lie side by side in an optimizer step, which keeps padding low, while
each pass still shows every example once and in a new order. A step has examples of several lengths:
steps of one length each would give the tokens of short answers a larger share in the gradient.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

# Steps that are sorted by length together: enough to save padding, few enough to keep chance in.
GROUP = 16
# Examples of similar length that stay together, at most.
TOGETHER = 4


def training_order(
    lengths: Sequence[int],
    *,
    batch_size: int,
    epochs: float,
    seed: int,
    max_steps: int | None = None,
) -> list[int]:
    """Indices into `lengths`, to be cut into optimizer steps of `batch_size`.

    What is left over at the end of a pass shares a step with the beginning of the next one, so
    only the very last step can be short. A fraction of an epoch is rounded up to whole examples.
    """
    total = math.ceil(epochs * len(lengths))
    if max_steps is not None:
        total = min(total, max_steps * batch_size)
    order: list[int] = []
    left: list[int] = []
    for number in range(math.ceil(total / len(lengths))):
        rng = random.Random(f"epoch {seed} {number}")
        indices = list(range(len(lengths)))
        rng.shuffle(indices)
        stream = left + indices[: total - len(order) - len(left)]
        bridge = batch_size if left else 0
        whole = max(bridge, len(stream) // batch_size * batch_size)
        order += stream[:bridge]
        for start in range(bridge, whole, GROUP * batch_size):
            group = stream[start : min(start + GROUP * batch_size, whole)]
            order += _grouped(group, lengths, batch_size, rng)
        left = stream[whole:]
    return order + left


def _grouped(
    group: list[int], lengths: Sequence[int], batch_size: int, rng: random.Random
) -> list[int]:
    """`group`, whole steps of it, in steps that are made up of a few examples of each length."""
    ordered = sorted(group, key=lambda index: (lengths[index], index))
    size = next(size for size in range(TOGETHER, 0, -1) if batch_size % size == 0)
    parts = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    rng.shuffle(parts)
    mixed = [index for part in parts for index in part]
    steps = [mixed[at : at + batch_size] for at in range(0, len(mixed), batch_size)]
    return [
        index for step in steps for index in sorted(step, key=lambda index: (lengths[index], index))
    ]
