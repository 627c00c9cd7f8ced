"""Ways to choose some of many records, each with the reason why a record was not chosen.

- `first`: down an order (by score, or random), leaving out what is too near to something taken.
  With scores this is DEITA's score-first, diversity-aware selection (Liu et al. 2024, arXiv
  2312.15685, section 2.4).
- `k_center` and `facility_location` cover the others: see `coverage`.

All are deterministic, and quotas bound how many records of a group are taken.
"""

from __future__ import annotations

import hashlib
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


def with_reasons(size: int, chosen: list[int], quota: Quota) -> Choice:
    """The choice of `chosen` out of `size` records; the others had no quota, or were not needed."""
    taken = set(chosen)
    reasons = {
        at: NOT_NEEDED if quota.allows(at) else OVER_QUOTA for at in range(size) if at not in taken
    }
    return Choice(chosen, reasons)


def tally(reasons: Mapping[int, str]) -> dict[str, int]:
    """How many records have each reason, in the order of `REASONS`."""
    counts = Counter(reasons.values())
    return {reason: counts[reason] for reason in REASONS if counts[reason]}
