"""From what a few slots cost to what a whole run will: ratios, their spread, and falling yield."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Self

import msgspec

ROUNDS = 1000
# Resampling costs slots times rounds; past this many slots fewer rounds are as good.
_DRAWS = 1_000_000
INTERVAL = (0.05, 0.95)
# Slots ahead, as a multiple of those seen, past which their own spread hardly counts.
_FUTURE = 4
# A resample, or a run so far, that kept nothing counts as half a record rather than as none.
_HALF = 0.5


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """Requests, tokens, picodollars and seconds of calls, of a slot, a record or a run.

    `busy_s` adds up the seconds of all calls, as if they were made one after the other.
    """

    slots: float = 0.0
    requests: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    cost: float = 0.0
    busy_s: float = 0.0

    def __add__(self, other: Self) -> Amounts:
        return _amounts([a + b for a, b in zip(_values(self), _values(other), strict=True)])

    def __mul__(self, factor: float) -> Amounts:
        return _amounts([value * factor for value in _values(self)])


FIELDS = Amounts.__struct_fields__


class Slot(msgspec.Struct, frozen=True):
    """What one slot took and how many records it brought."""

    amounts: Amounts
    kept: int


class StrategyLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot of one strategy takes and brings on average; `share` of all slots."""

    name: str
    share: float
    requests: float
    tokens_in: float
    tokens_out: float
    kept: float


def strategy_line(name: str, share: float, slot: Amounts, kept: float) -> StrategyLine:
    """The line of a strategy whose slots take `slot`."""
    return StrategyLine(
        name=name,
        share=share,
        requests=slot.requests,
        tokens_in=slot.tokens_in,
        tokens_out=slot.tokens_out,
        kept=kept,
    )


def stretch(start: int, target: int, pool: int, fall: float) -> float:
    """How many times the slots are needed that an unchanging yield would need.

    Args:
        start: records kept already, seeds included.
        target: records to end with, seeds included.
        pool: up to this many records the yield is what it was.
        fall: share of the yield that is lost with each doubling past `pool`, below 1.

    With y(n) = y (n / pool)^-g for n > pool and g = -log2(1 - fall), the slots needed are the
    integral of 1 / y(n) from start to target.
    """
    if target <= start or target <= pool or fall <= 0:
        return 1.0
    power = 1 - math.log2(1 - fall)
    before = max(0, pool - start)
    bent = math.pow(target / pool, power) - math.pow(max(start, pool) / pool, power)
    return (before + pool * bent / power) / (target - start)


def per_record(slots: Sequence[Slot]) -> Amounts:
    """What a kept record took on average."""
    total = Amounts()
    for slot in slots:
        total = total + slot.amounts
    return total * (1 / max(_HALF, sum(slot.kept for slot in slots)))


def interval(slots: Sequence[Slot], ahead: float, seed: int = 0) -> tuple[Amounts, Amounts]:
    """The 5th and the 95th percentile of what a record will take, each amount by itself.

    By bootstrap: slots are drawn with replacement once in place of those seen and once in place of
    those `ahead`, since both the measure and what is measured vary with the slots that come.
    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife" (Annals of Statistics, 1979).
    """
    rng = random.Random(seed)
    future = max(1, min(round(ahead), _FUTURE * len(slots)))
    rounds = max(100, min(ROUNDS, _DRAWS // (len(slots) + future)))
    columns = [[getattr(slot.amounts, name) for slot in slots] for name in FIELDS]
    kept = [slot.kept for slot in slots]

    def draw(size: int) -> list[float]:
        drawn = rng.choices(range(len(slots)), k=size)
        records = max(_HALF, sum(kept[n] for n in drawn))
        return [sum(column[n] for n in drawn) / records for column in columns]

    means = _values(per_record(slots))
    found: list[list[float]] = [[] for _ in FIELDS]
    for _ in range(rounds):
        for values, mean, seen, coming in zip(
            found, means, draw(len(slots)), draw(future), strict=True
        ):
            values.append(mean * coming / seen if seen else mean)
    low, high = (_amounts([sorted(v)[round(q * (rounds - 1))] for v in found]) for q in INTERVAL)
    return low, high


def _values(amounts: Amounts) -> list[float]:
    return [getattr(amounts, name) for name in FIELDS]


def _amounts(values: Sequence[float]) -> Amounts:
    return Amounts(**dict(zip(FIELDS, values, strict=True)))


def measured_fall(slots: Sequence[Slot], seeds: int) -> float:
    """Share of the yield lost with a doubling of the pool, by the two halves of `slots`; 0 to 0.5.

    0 also where the halves are too small to tell (fewer than 20 slots) or the pool hardly grew.
    """
    half = len(slots) // 2
    first = sum(slot.kept for slot in slots[:half])
    second = sum(slot.kept for slot in slots[half : 2 * half])
    if half < 20 or not first or second >= first:
        return 0.0
    doublings = math.log2((seeds + first + second / 2) / (seeds + first / 2))
    if doublings < 0.25:
        return 0.0
    kept_share = math.pow(max(_HALF, second) / first, 1 / doublings)
    return min(0.5, 1 - kept_share)
