"""How many calls of a route may be on the wire: few at first, more while all goes well.

The rule is that of inspect_ai's controller (UK AI Security Institute), after TCP's: double after
each clean round until the server first says "too fast", then fall to four fifths on rate limits
and gain a twentieth per clean round. A round is as many replies as calls are allowed. Unlike there,
not the single refusal counts but the share of them in a round: a gateway that refuses one call in
twenty, whatever the load, would hold everything down for nothing. Below ten calls at once a single
refusal is share enough. Server errors (5xx) say nothing about the rate and change nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

SLOW_START = 8
FALL, RISE = 0.8, 0.05
# Refusals in a round from which the limit falls, and below which the round is clean.
TOO_MANY, FEW = 0.1, 0.05
# A fall shows its effect only when the calls in flight have come back.
COOL_DOWN_S = 15.0
# A limit that is not used says nothing about the server: it does not rise.
USED = 0.8


class Gate:
    """Lets calls through, first come first served, never more than `limit` at once.

    Use it as ``async with gate:`` around a call, or `enter` and `leave` it, and tell it how the
    call went.

    Args:
        ceiling: calls at once at most, whatever the server allows.
        start: calls at once in the beginning; the ceiling where not given.
        clock: seconds from any fixed moment.
    """

    __slots__ = (
        "_busiest", "_clock", "_good", "_hold_until", "_refused", "_slow_start", "_waiting",
        "ceiling", "in_use", "limit",
    )  # fmt: skip

    def __init__(
        self,
        ceiling: int,
        *,
        start: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ceiling = ceiling
        self.limit = max(1, min(ceiling, start or ceiling))
        self.in_use = 0
        self._slow_start = True
        self._good = 0  # good replies in this round
        self._refused = 0  # rate limits in this round
        self._busiest = 0  # calls at once in this round, at most
        self._hold_until = -math.inf
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(self, *exc: object) -> None:
        self.leave()

    async def enter(self, *, ahead: bool = False) -> None:
        """Wait for a place; `leave` gives it back. Whoever is `ahead` goes before the others."""
        if self.in_use < self.limit and not self._waiting:
            self.in_use += 1
        else:
            await self._queue(ahead)
        if self.in_use > self._busiest:
            self._busiest = self.in_use

    def succeeded(self) -> None:
        """A call came back well; a clean round raises the limit."""
        self._good += 1
        replies = self._good + self._refused
        if replies < self.limit:
            return
        clean = self._refused < FEW * replies
        used = self._busiest >= USED * self.limit
        self._new_round()
        if not (clean and used) or self.limit >= self.ceiling or self._clock() < self._hold_until:
            return
        more = self.limit if self._slow_start else max(1, round(self.limit * RISE))
        self.limit = min(self.ceiling, self.limit + more)
        self._let_in()

    def rate_limited(self) -> None:
        """The server said "too fast": fall where many were told so, unless it just did."""
        self._slow_start = False
        self._refused += 1
        if self._refused < TOO_MANY * self.limit:
            return
        self._new_round()
        now = self._clock()
        if now < self._hold_until:
            return
        self._hold_until = now + COOL_DOWN_S
        self.limit = max(1, int(self.limit * FALL))

    def _new_round(self) -> None:
        self._good = self._refused = 0
        self._busiest = self.in_use

    def leave(self) -> None:
        """Give a place back, to whoever waits longest."""
        self.in_use -= 1
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        waiting = self._waiting
        while waiting and self.in_use < self.limit:
            future = waiting.popleft()
            if not future.done():  # its task was cancelled meanwhile
                self.in_use += 1
                future.set_result(None)

    async def _queue(self, ahead: bool) -> None:
        future = asyncio.get_running_loop().create_future()
        if ahead:
            self._waiting.appendleft(future)
        else:
            self._waiting.append(future)
        self._let_in()  # those before it may all have been cancelled
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():  # let in and cancelled at the same moment
                self.leave()
            raise
