"""Requests and tokens per minute: token buckets from the recipe and from what the server says.

A bucket fills at a steady rate up to its size; a call takes out what it will need and waits until
that was there. Calls wait in the order they came, each for its own time: nothing stands still
because one of them was refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from selfinstruct.core.types import Request, Usage
from selfinstruct.steps.teachers.limits import Allowance, Limits

# What a bucket of the recipe lets through at once, in seconds of its rate.
BURST_S = 1.0
# A wait that a header asks for is not longer: then the server is asked again.
LONGEST_WAIT_S = 60.0
_LEARNING = 0.1  # weight of one reply in the mean length of replies


class Needs(NamedTuple):
    """What a call takes out of the buckets: one request and so many tokens, estimated."""

    input: float
    output: float


class Bucket:
    """One limit.

    `level` may fall below zero: that much is promised to calls which wait for it.

    Args:
        size: what may be taken at once.
        rate: how much comes back in a second.
        now: the time, by the clock that later calls use too.
    """

    __slots__ = ("at", "level", "rate", "size")

    def __init__(self, size: float, rate: float, now: float) -> None:
        self.size = size
        self.rate = rate
        self.level = size
        self.at = now

    def take(self, amount: float, now: float) -> float:
        """Take `amount` out; the seconds until it was there.

        A call that needs more than the bucket holds goes when it is full.
        """
        self._fill(now)
        lacking = min(amount, self.size) - self.level
        self.level -= amount
        return lacking / self.rate if lacking > 0 else 0.0

    def give_back(self, amount: float) -> None:
        """Put back what was not needed; a negative `amount` takes what was needed besides."""
        self.level = min(self.size, self.level + amount)

    def learn(self, said: Allowance, promised: float, now: float) -> None:
        """Agree with the server: it has counted some or all of what is `promised` to open calls."""
        self._fill(now)
        self.size = said.limit
        missing = said.limit - said.remaining
        if said.reset_s and missing > 0:
            self.rate = missing / said.reset_s
        self.level = min(max(self.level, said.remaining - promised), said.remaining)

    def _fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now


def per_minute(limit: float, now: float) -> Bucket:
    """A bucket that lets through no more than `limit` in any minute, evenly spread."""
    size = max(1.0, limit / 60 * BURST_S)
    return Bucket(size, (limit - size + 1 if limit >= 1 else limit) / 60, now)


class Pacer:
    """The buckets of a route.

    Args:
        requests_per_minute: the recipe's limit, if any.
        tokens_per_minute: the same for tokens, those of prompts and replies together.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        now = clock()
        self._fixed: dict[str, Bucket] = {}
        if requests_per_minute is not None:
            self._fixed["requests"] = per_minute(requests_per_minute, now)
        if tokens_per_minute is not None:
            self._fixed["tokens"] = per_minute(tokens_per_minute, now)
        self._learnt: dict[str, Bucket] = {}
        self._said: Limits | None = None
        self._open = dict.fromkeys(("requests", "tokens", "input_tokens", "output_tokens"), 0.0)
        self._reply: float | None = None  # mean tokens of a reply

    def take(self, request: Request) -> tuple[Needs, float]:
        """What `request` needs, taken out, and the seconds to wait before it is sent."""
        needs = self._needs(request)
        amounts = _amounts(needs)
        for name, amount in amounts.items():
            self._open[name] += amount
        if not self._fixed and not self._learnt:
            return needs, 0.0
        now = self._clock()
        wait = max((b.take(amounts[name], now) for name, b in self._fixed.items()), default=0.0)
        learnt = max((b.take(amounts[name], now) for name, b in self._learnt.items()), default=0.0)
        return needs, max(wait, min(learnt, LONGEST_WAIT_S))

    def cancel(self, needs: Needs) -> None:
        """The call was not made after all."""
        self._close(needs, dict.fromkeys(self._open, 0.0))

    def settle(self, needs: Needs, usage: Usage | None) -> None:
        """The call came back, with its usage if it used anything."""
        if usage is None:
            actual = Needs(0.0, 0.0)
        else:
            actual = Needs(usage.input, usage.output)
            mean = usage.output if self._reply is None else self._reply
            self._reply = mean + _LEARNING * (usage.output - mean)
        self._close(needs, _amounts(actual))

    def learn(self, said: Limits | None) -> None:
        """Take in what the last reply's headers said."""
        if said is None or said is self._said:
            return
        self._said = said
        now = self._clock()
        for name in self._open:
            allowance: Allowance | None = getattr(said, name)
            if allowance is None:
                continue
            bucket = self._learnt.get(name)
            if bucket is None:
                bucket = self._learnt[name] = Bucket(allowance.limit, allowance.limit / 60, now)
                bucket.level = allowance.remaining - self._open[name]
            bucket.learn(allowance, self._open[name], now)

    def _needs(self, request: Request) -> Needs:
        asked = sum(len(message.content) for message in request.messages) + len(request.prompt)
        most = request.sampling.max_tokens
        return Needs(asked / 4 + 1, most if self._reply is None else min(most, self._reply))

    def _close(self, needs: Needs, actual: dict[str, float]) -> None:
        for name, amount in _amounts(needs).items():
            self._open[name] -= amount
            unused = amount - actual[name]
            for buckets in (self._fixed, self._learnt):
                if unused and name in buckets:
                    buckets[name].give_back(unused)


def _amounts(needs: Needs) -> dict[str, float]:
    return {
        "requests": 1.0,
        "tokens": needs.input + needs.output,
        "input_tokens": needs.input,
        "output_tokens": needs.output,
    }
