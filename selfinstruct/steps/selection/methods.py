"""Ways to choose some of many records, each with the reason why a record was not chosen.

- `first`: down an order (by score, or random), leaving out what is too near to something taken.
  With scores this is DEITA's score-first, diversity-aware selection (Liu et al. 2024, arXiv
  2312.15685, section 2.4).
- `k_center`: always the record farthest from all taken (Gonzalez 1985; Sener and Savarese 2018):
  spreads out, and takes outliers.
- `facility_location`: always the record that brings the others nearest to one taken (Mirchandani
  and Francis 1990; lazy greedy after Minoux 1978): stands for the whole, and leaves outliers.

All are deterministic, and quotas bound how many records of a group are taken.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from selfinstruct.steps.embedding.vectors import Taken, Vectors

NOT_SCORED, TOO_NEAR, OVER_QUOTA, NOT_NEEDED = "not_scored", "too_near", "over_quota", "not_needed"
REASONS = {
    NOT_SCORED: "it has no score to be ordered by",
    TOO_NEAR: "a selected record is nearer than the least distance",
    OVER_QUOTA: "its group had its quota",
    NOT_NEEDED: "enough were selected without it",
}
"""Every reason why a record is not selected, with one line that explains it."""

# Neighbours of a record that count in facility location; what is farther counts as not near.
NEIGHBOURS = 64


class Choice(NamedTuple):
    """Positions chosen, in order, and the reason of every other position."""

    chosen: list[int]
    reasons: dict[int, str]


class Quota:
    """At most `most` records of a group. Without groups everything is allowed."""

    def __init__(self, groups: Sequence[str] | None = None, most: int | None = None) -> None:
        self._groups = groups
        self._most = most
        self._taken: Counter[str] = Counter()

    def allows(self, at: int) -> bool:
        """Whether the group of the record `at` has room."""
        if self._groups is None or self._most is None:
            return True
        return self._taken[self._groups[at]] < self._most

    def take(self, at: int) -> None:
        """Count the record `at`."""
        if self._groups is not None:
            self._taken[self._groups[at]] += 1


def draw(ids: Sequence[str], seed: int) -> list[int]:
    """Positions in a random order that follows from each id alone, whatever else is there."""

    def rank(at: int) -> tuple[bytes, int]:
        text = f"{seed}:{ids[at]}".encode("utf-8", "replace")
        return hashlib.sha256(text).digest(), at

    return sorted(range(len(ids)), key=rank)


def by_score(order: Sequence[int], scores: Sequence[float | None], *, lowest: bool) -> list[int]:
    """The positions of `order` that have a score, the best first; equals stay in their order."""
    scored = [(score, at) for at in order if (score := scores[at]) is not None]
    return [at for score, at in sorted(scored, key=lambda pair: pair[0] if lowest else -pair[0])]


def first(
    order: Sequence[int],
    count: int | None,
    quota: Quota,
    vectors: Vectors | None = None,
    min_distance: float = 0.0,
) -> Choice:
    """The first `count` of `order` that are at least `min_distance` from all taken before.

    Args:
        order: positions, best first.
        count: how many; None for as many as there are.
        quota: bounds groups.
        vectors: of all records; needed where `min_distance` is above 0.
        min_distance: 1 minus the cosine; a record at exactly this distance is taken.
    """
    count = len(order) if count is None else count
    taken = Taken(vectors, min(count, len(order))) if vectors is not None else None
    chosen: list[int] = []
    reasons: dict[int, str] = {}
    for at in order:
        if len(chosen) >= count:
            reasons[at] = NOT_NEEDED
        elif not quota.allows(at):
            reasons[at] = OVER_QUOTA
        elif taken is not None and 1 - taken.nearest(at) < min_distance:
            reasons[at] = TOO_NEAR
        else:
            chosen.append(at)
            quota.take(at)
            if taken is not None:
                taken.add(at)
    return Choice(chosen, reasons)


def k_center(vectors: Vectors, count: int, quota: Quota) -> Choice:
    """Farthest first, from the record nearest to the mean of all."""
    import numpy as np

    nearest = np.full(len(vectors), -2.0)  # cosine with the nearest record taken
    closed = np.zeros(len(vectors), bool)  # taken, or over its quota
    full: set[int] = set()
    chosen: list[int] = []
    at = vectors.middle() if len(vectors) else -1
    while len(chosen) < count and len(chosen) + len(full) < len(vectors):
        if quota.allows(at):
            chosen.append(at)
            quota.take(at)
            nearest = np.maximum(nearest, vectors.similarities(at))
        else:
            full.add(at)
        closed[at] = True
        at = int(np.argmin(np.where(closed, np.inf, nearest)))
    return _with_reasons(len(vectors), chosen, quota)


def facility_location(vectors: Vectors, count: int, quota: Quota) -> Choice:
    """Greedy facility location: each choice adds most to the sum of each record's nearest choice.

    Similarities below 0, and those past a record's `NEIGHBOURS` nearest, count as 0.
    """
    import numpy as np

    near: list[list[int]] = [[] for _ in range(len(vectors))]
    how: list[list[float]] = [[] for _ in range(len(vectors))]
    for row, columns, found in vectors.neighbours(NEIGHBOURS):
        for column, similarity in zip(columns.tolist(), found.tolist(), strict=True):
            if similarity > 0:
                near[column].append(row)
                how[column].append(similarity)
    rows = [np.array(found, np.int64) for found in near]
    values = [np.array(found) for found in how]
    covered = np.zeros(len(vectors))

    def gain(at: int) -> float:
        return float(np.maximum(values[at] - covered[rows[at]], 0.0).sum())

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
        covered[rows[at]] = np.maximum(covered[rows[at]], values[at])
    return _with_reasons(len(vectors), chosen, quota)


def _with_reasons(size: int, chosen: list[int], quota: Quota) -> Choice:
    taken = set(chosen)
    reasons = {
        at: NOT_NEEDED if quota.allows(at) else OVER_QUOTA for at in range(size) if at not in taken
    }
    return Choice(chosen, reasons)


def tally(reasons: Mapping[int, str]) -> dict[str, int]:
    """How many records have each reason, in the order of `REASONS`."""
    counts = Counter(reasons.values())
    return {reason: counts[reason] for reason in REASONS if counts[reason]}
