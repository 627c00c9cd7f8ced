"""The order in which examples are trained on: a pure function, so that a resumed run repeats it.

Examples of similar length lie side by side in an optimizer step, which keeps padding low, while
each pass still shows every example once and in a new order. Each step has short and long examples
in like shares: the loss of a step is the mean over its tokens, so a step of short answers would
give each of their tokens a larger share in what is learned.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

# Steps that are sorted by length together: enough to save padding, few enough to keep chance in.
GROUP = 16
# Examples of similar length that stay together, at most: half of a step or less.
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
    """`group`, whole steps of it, in steps that have some neighbours in length of each stratum.

    Sorted by length, the group is cut into runs of neighbours and these into as many strata as a
    step has runs. From the longest stratum on, the longest run goes to the step with the fewest
    tokens so far, so that steps have about as many as each other.
    """
    rng.shuffle(group)  # among examples of one length, chance decides
    ordered = sorted(group, key=lengths.__getitem__, reverse=True)
    most = max(1, min(TOGETHER, batch_size // 2))
    size = next(size for size in range(most, 0, -1) if batch_size % size == 0)
    runs = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    count = len(group) // batch_size
    steps: list[list[int]] = [[] for _ in range(count)]
    for at in range(0, len(runs), count):
        steps.sort(key=lambda step: sum(lengths[index] for index in step))
        for step, run in zip(steps, runs[at : at + count], strict=True):
            step += run
    rng.shuffle(steps)
    return [index for step in steps for index in sorted(step, key=lengths.__getitem__)]
