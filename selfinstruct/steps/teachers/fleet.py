"""Several servers of one model: which of them takes the next call.

The one with the fewest calls open does, so that a slow server gets less to do. One that cannot be
connected to, or fails call after call, is left out; after a while one call tries it again, and the
while doubles each time that fails. Where all are out, the one that is due first is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from selfinstruct.core.errors import FaultKind, TeacherFault

# So many calls in a row that the server failed at; a connection that is refused needs no second.
FAILURES = 3
OUT_S, OUT_LIMIT_S = 1.0, 60.0
_ITS_FAULT: frozenset[FaultKind] = frozenset({"connection", "overloaded", "timeout"})


class Member:
    """One server of a fleet, by its address up to and with ``/v1``."""

    __slots__ = ("base", "due", "failures", "open", "outs")

    def __init__(self, base: str) -> None:
        self.base = base
        self.open = 0
        """Calls under way."""
        self.failures = 0
        self.outs = 0
        """How often it was left out since it last answered; 0 where it is in."""
        self.due = 0.0
        """When it may be tried again."""


class Fleet:
    """The servers and how they do.

    Args:
        bases: their addresses; at least one.
        clock: seconds from any fixed moment.
    """

    def __init__(self, bases: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.members = [Member(base) for base in bases]
        self._clock = clock
        self._last = 0

    def take(self, tried: Sequence[Member] = ()) -> Member:
        """The server for the next call, which is counted as open; end it with `done`.

        Args:
            tried: servers that this call could not connect to.
        """
        alone = len(self.members) == 1
        member = self.members[0] if alone else self._choose(tried)
        member.open += 1
        return member

    def _choose(self, tried: Sequence[Member]) -> Member:
        members, now = self.members, self._clock()
        left = [member for member in members if member not in tried] or members
        for member in left:
            if member.outs and member.due <= now:  # this call alone tries it
                _leave_out(member, now)
                return member
        here = [member for member in left if not member.outs]
        if not here:
            return min(left, key=_due)
        # Of several with as few, each in its turn.
        self._last += 1
        first = self._last % len(here)
        return min(here[first:] + here[:first], key=_open)

    def others(self, tried: Sequence[Member]) -> bool:
        """Whether a server is in that was not tried."""
        return any(not member.outs and member not in tried for member in self.members)

    def done(self, member: Member, fault: TeacherFault | None) -> None:
        """A call of `member` came back; `fault` is what went wrong."""
        member.open -= 1
        if fault is None or fault.kind not in _ITS_FAULT:
            member.failures = member.outs = 0
            return
        member.failures += 1
        refused = fault.kind == "connection" and fault.billed == "no"
        if not member.outs and (refused or member.failures >= FAILURES):
            _leave_out(member, self._clock())


def _leave_out(member: Member, now: float) -> None:
    """Until its next try, each time for twice as long."""
    member.due = now + min(OUT_LIMIT_S, OUT_S * 2.0 ** min(member.outs, 10))
    member.outs += 1


def _open(member: Member) -> int:
    return member.open


def _due(member: Member) -> float:
    return member.due
