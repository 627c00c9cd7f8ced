"""Choose records that cover the others, by their embeddings.

- `k_center`: always the record farthest from all taken (Gonzalez 1985; Sener and Savarese 2018):
  spreads out, and takes outliers.
- `facility_location`: always the record that brings the others nearest to one taken (Mirchandani
  and Francis 1990; lazy greedy after Minoux 1978): stands for the whole, and leaves outliers.

Both make the very choices of the plain greedy search, in whole numbers or quotients of them, so
they are the same on every machine. `k_center` takes time proportional to records times choices,
`facility_location` to the square of the records; memory grows with the records alone.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np

from selfinstruct.steps.selection.methods import Choice, Quota, with_reasons

if TYPE_CHECKING:
    from selfinstruct.steps.embedding.vectors import Vectors

# Neighbours of a record that count in facility location; what is farther counts as not near.
NEIGHBOURS = 64
# Steps that a similarity of 1 has in facility location: sums of whole numbers have no order.
STEPS = 2**40
# Records among which k-center looks for the farthest before it looks at all of them again.
FAR = 2048


def k_center(vectors: Vectors, count: int, quota: Quota) -> Choice:
    """Farthest first, from the record nearest to the mean of all.

    A record's cosine with its nearest choice only grows. So whatever is farther than all but `FAR`
    records were a while ago is one of these, and only they need to be compared with each choice as
    it is made; the others are with many choices at once, at a fraction of the time.
    """
    nearest = np.full(len(vectors), -2.0)  # cosine with the nearest of the choices so far
    closed = np.zeros(len(vectors), bool)  # taken, or over its quota
    chosen: list[int] = []
    at = vectors.middle() if len(vectors) else -1
    while len(chosen) < count and not closed.all():
        before = len(chosen)
        far, bound = _farthest(np.where(closed, np.inf, nearest))
        some, near = vectors.part(far), nearest[far]
        # The first is the farthest of all. Then one that is as far as `bound` may not be the first
        # of equals, and all are looked at again.
        while len(chosen) < count:
            closed[at] = True
            if quota.allows(at):
                chosen.append(at)
                quota.take(at)
                near = np.maximum(near, some.similarities_with(vectors, at))
            place = int(np.argmin(np.where(closed[far], np.inf, near)))
            at = int(far[place])
            if closed[at] or near[place] >= bound:
                break
        nearest = np.maximum(nearest, vectors.nearest(chosen[before:]))
        at = int(np.argmin(np.where(closed, np.inf, nearest)))
    return with_reasons(len(vectors), chosen, quota)


def _farthest(nearest: Any) -> tuple[Any, float]:
    """The `FAR` positions with the lowest values, in order, and the lowest value of the others."""
    if len(nearest) <= FAR:
        return np.arange(len(nearest)), np.inf
    order = np.argpartition(nearest, FAR)
    return np.sort(order[:FAR]), float(nearest[order[FAR]])


def facility_location(vectors: Vectors, count: int, quota: Quota) -> Choice:
    """Greedy facility location: each choice adds most to the sum of each record's nearest choice.

    Similarities below 0, and those past a record's `NEIGHBOURS` nearest, count as 0.
    """
    rows, values, starts = _near(vectors)
    covered = np.zeros(len(vectors), np.int64)

    def gain(at: int) -> int:
        span = slice(starts[at], starts[at + 1])
        return int(np.maximum(values[span] - covered[rows[span]], 0).sum())

    # A gain only falls as more is taken: one that is still the largest needs no other one.
    heap = [(-gain(at), at) for at in range(len(vectors))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, at = heapq.heappop(heap)
        if not quota.allows(at):
            continue
        now = (-gain(at), at)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
            continue
        chosen.append(at)
        quota.take(at)
        span = slice(starts[at], starts[at + 1])
        covered[rows[span]] = np.maximum(covered[rows[span]], values[span])
    return with_reasons(len(vectors), chosen, quota)


def _near(vectors: Vectors) -> tuple[Any, Any, list[int]]:
    """For each record, those that have it among their nearest: rows, similarities, where it begins.

    The records `rows[starts[at] : starts[at + 1]]` are near to the record `at`.
    """
    size, most = len(vectors), min(NEIGHBOURS, len(vectors))
    columns = np.empty((size, most), np.int32)
    steps = np.empty((size, most), np.int64)
    for row, found, similar in vectors.neighbours(most):
        columns[row] = found
        steps[row] = np.rint(np.maximum(similar, 0.0) * STEPS)
    order = np.argsort(columns, axis=None, kind="stable")
    starts = np.searchsorted(columns.ravel()[order], np.arange(size + 1))
    return (order // max(1, most)).astype(np.int32), steps.ravel()[order], starts.tolist()
