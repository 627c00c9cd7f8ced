"""Whether a route's server answers, and who asks while it does not.

A server that has answered before and is then away (restarted, out of memory, behind a proxy that
says 502) is waited for. Meanwhile one call at a time finds out whether it is back; the others
neither press on it nor use up their attempts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from selfinstruct.core.errors import FaultKind

# Faults of a server that is away; any other reply means that it is there.
AWAY: frozenset[FaultKind] = frozenset({"connection", "overloaded"})
# So many of them in a row, with no good reply between, are more than a bad moment.
AWAY_AFTER = 5
PROBE_S, PROBE_LIMIT_S = 0.5, 10.0
PATIENCE_S = 300.0


class Health:
    """The state of one route's server.

    Args:
        patience_s: seconds for which an absent server is waited for.
        clock: seconds from any fixed moment.
    """

    __slots__ = (
        "_clock", "_next_probe", "_probes", "_streak", "_streak_began", "answers", "patience_s",
    )  # fmt: skip

    def __init__(
        self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.answers = 0
        """Good replies so far."""
        self.patience_s = patience_s
        self._clock = clock
        self._streak = 0
        self._streak_began = 0.0
        self._probes = 0
        self._next_probe = 0.0

    @property
    def reached(self) -> bool:
        """Whether the server ever gave a good reply."""
        return self.answers > 0

    @property
    def away(self) -> bool:
        """Whether the server has answered before and is not there now."""
        return self.reached and self._streak >= AWAY_AFTER

    @property
    def away_s(self) -> float:
        """Seconds since the first fault after the last good reply."""
        return self._clock() - self._streak_began if self._streak else 0.0

    @property
    def lost(self) -> bool:
        """Whether patience has run out."""
        return self.away and self.away_s >= self.patience_s

    def answered(self) -> None:
        """A good reply came."""
        self.answers += 1
        self._streak = 0

    def fault(self, kind: FaultKind) -> None:
        """An attempt failed."""
        if kind not in AWAY:
            self._streak = 0
            return
        now = self._clock()
        if not self._streak:
            self._streak_began = now
        self._streak += 1
        if self._streak == AWAY_AFTER:
            self._probes = 0
            self._next_probe = now + PROBE_S

    def may_try(self) -> bool:
        """Whether a call may be made now: always, or as the one that asks an absent server."""
        if not self.away:
            return True
        now = self._clock()
        if now < self._next_probe:
            return False
        self._probes += 1
        self._next_probe = now + min(PROBE_LIMIT_S, PROBE_S * 2.0 ** min(self._probes, 10))
        return True
