"""How many calls of a route may be on the wire: few at first, more while all goes well.

The rule is that of inspect_ai's controller (UK AI Security Institute), after TCP's: double after
each clean round until the server first says "too fast", then fall to four fifths on a rate limit
and gain a twentieth per clean round. A round is as many good replies as calls are allowed. Server
errors (5xx) say nothing about the rate and change nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

SLOW_START = 8
FALL, RISE = 0.8, 0.05
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
        "_busiest", "_clean", "_clock", "_hold_until", "_slow_start", "_waiting",
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
        self._clean = 0  # good replies in this round
        self._busiest = 0  # calls at once in this round, at most
        self._hold_until = -math.inf
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(self, *exc: object) -> None:
        self.leave()

    async def enter(self) -> None:
        """Wait for a place; `leave` gives it back."""
        if self.in_use < self.limit and not self._waiting:
            self.in_use += 1
        else:
            await self._queue()
        if self.in_use > self._busiest:
            self._busiest = self.in_use

    def succeeded(self) -> None:
        """A call came back well; a round of them raises the limit."""
        self._clean += 1
        if self._clean < self.limit:
            return
        used = self._busiest >= USED * self.limit
        self._new_round()
        if not used or self.limit >= self.ceiling or self._clock() < self._hold_until:
            return
        more = self.limit if self._slow_start else max(1, round(self.limit * RISE))
        self.limit = min(self.ceiling, self.limit + more)
        self._let_in()

    def rate_limited(self) -> None:
        """The server said "too fast": fall, unless it just did."""
        self._new_round()
        now = self._clock()
        if now < self._hold_until:
            return
        self._slow_start = False
        self._hold_until = now + COOL_DOWN_S
        self.limit = max(1, int(self.limit * FALL))

    def _new_round(self) -> None:
        self._clean = 0
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

    async def _queue(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._let_in()  # those before it may all have been cancelled
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():  # let in and cancelled at the same moment
                self.leave()
            raise
