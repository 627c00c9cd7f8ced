"""Steering by yield: when the share of candidates kept falls, ask differently; when a kept record
gets too dear, stop.

What a slot may know is fixed by the sliding window, so what steers it is too: the course of slot i
is computed from the slots judged up to i - width, and is the same at any speed, interrupted or not.

A run starts at level 0, as its recipe says. The share kept over the last `SPAN` slots, next to the
best such share so far, sets the level: below 3/4 of it 1, below 1/2 it is 2, below 1/3 it is 3.
From level 1 on

- each strategy's weight is multiplied by its recent yield next to the mean one (1/4 to 4),
- one more machine-written example per level is shown, which leads away from the seeds,
- seeds are drawn from the half that was shown least,
- the sampling temperature rises by 0.1 per level.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec

SPAN = 60
LEVELS = (3 / 4, 1 / 2, 1 / 3)
WARMER = 0.1
LEAST, MOST = 0.25, 4.0


class SlotYield(msgspec.Struct, frozen=True):
    """What a judged slot brought; `cost` in picodollars, `parents` as its prompt showed them."""

    strategy: str
    candidates: int
    kept: int
    cost: int
    parents: tuple[str, ...]


class Course(msgspec.Struct, frozen=True):
    """How a slot asks.

    `favour` multiplies the weights of strategies by name (1 where not named), `machine` examples
    are shown more than the recipe says, the temperature is `warmer` by so many degrees, and `seeds`
    are the ids to draw from (all where empty).
    """

    level: int = 0
    favour: Mapping[str, float] = {}
    machine: int = 0
    warmer: float = 0.0
    seeds: frozenset[str] = frozenset()


class Steering:
    """Follows a run's yield, in slot order.

    Args:
        strategies: their names.
        seeds: the ids of the seed tasks.
        span: slots that "recently" means.
    """

    def __init__(self, strategies: Sequence[str], seeds: Sequence[str], span: int = SPAN) -> None:
        self._strategies = sorted(set(strategies))
        self._seeds = list(seeds)
        self._span = span
        self._ahead: deque[SlotYield] = deque()  # judged, and not yet in sight of any slot
        self._recent: deque[SlotYield] = deque(maxlen=span)
        self._shown: Counter[str] = Counter()
        self._best = 0.0
        self._folded = 0
        self._course = Course()

    def observe(self, judged: SlotYield) -> None:
        """Take in the next judged slot."""
        self._ahead.append(judged)

    def course(self, judged: int) -> Course:
        """The course of a slot that may know of the first `judged` slots; never fewer than before.

        It changes only when a whole span has come into sight, so that it does not flutter.
        """
        while self._folded < judged:
            self._fold(self._ahead.popleft())
            if self._folded % self._span == 0:
                self._course = self._plot()
        return self._course

    def _fold(self, slot: SlotYield) -> None:
        self._folded += 1
        self._recent.append(slot)
        self._shown.update(slot.parents)

    def _plot(self) -> Course:
        candidates = sum(slot.candidates for slot in self._recent)
        if not candidates:
            return self._course
        share = sum(slot.kept for slot in self._recent) / candidates
        self._best = max(self._best, share)
        level = sum(share < self._best * part for part in LEVELS)
        if level == 0:
            return Course()
        return Course(level, self._by_yield(), level, WARMER * level, self._rested())

    def _by_yield(self) -> dict[str, float]:
        """More weight for the strategies that bring more kept records a slot."""
        slots, kept = Counter[str](), Counter[str]()
        for slot in self._recent:
            slots[slot.strategy] += 1
            kept[slot.strategy] += slot.kept
        mean = sum(kept.values()) / len(self._recent)
        if not mean:
            return {}
        # One slot at the mean is added to each: a strategy that had bad luck stays in the draw.
        return {
            name: min(MOST, max(LEAST, (kept[name] + mean) / (slots[name] + 1) / mean))
            for name in self._strategies
        }

    def _rested(self) -> frozenset[str]:
        """The half of the seeds that was shown least, the earlier ones where it is even."""
        order = sorted(self._seeds, key=lambda seed: self._shown[seed])
        return frozenset(order[: max(1, (len(order) + 1) // 2)])


class MarginalPrice:
    """What one more kept record costs, over the last slots.

    Args:
        limit: picodollars per kept record, or None for no limit.
        span: slots looked back on; there is no verdict before so many.
    """

    def __init__(self, limit: int | None, span: int = SPAN) -> None:
        self._limit = limit
        self._recent: deque[SlotYield] = deque(maxlen=span)

    def observe(self, judged: SlotYield) -> None:
        """Take in the next judged slot."""
        self._recent.append(judged)

    @property
    def price(self) -> float:
        """Picodollars per kept record over the span; infinite where none was kept."""
        kept = sum(slot.kept for slot in self._recent)
        cost = sum(slot.cost for slot in self._recent)
        return cost / kept if kept else float("inf") if cost else 0.0

    @property
    def too_dear(self) -> bool:
        """Whether the limit is passed."""
        whole = len(self._recent) == self._recent.maxlen
        return self._limit is not None and whole and self.price > self._limit
