"""How long a failed attempt waits before it is made again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import FaultKind, TeacherFault
from selfinstruct.engine.health import Health
from selfinstruct.engine.retries import BACKOFF_LIMIT, BACKOFF_SECONDS, Tries, delay


def longest(
    kind: FaultKind, faults: int, *, others: bool, retry_after: float | None = None
) -> float:
    """The longest of many delays after so many faults of a kind."""
    health, tries = Health(), Tries()
    fault = TeacherFault(kind, "x", retry_after=retry_after)
    for _ in range(faults):
        if others:
            health.answered()
        tries.count(fault, health)
    return max(delay(fault, tries) for _ in range(300))


@given(after=st.floats(0, 5000), faults=st.integers(1, 50))
def test_the_servers_word_counts(after: float, faults: int) -> None:
    """No earlier than it asked, and hardly later, whatever came before."""
    health, tries = Health(), Tries()
    fault = TeacherFault("rate_limited", "x", retry_after=after)
    for _ in range(faults):
        tries.count(fault, health)
    assert after <= delay(fault, tries) <= after + 0.1


@pytest.mark.parametrize("kind", ["overloaded", "connection", "timeout", "bad_reply"])
def test_where_nobody_is_answered_the_wait_doubles(kind: FaultKind) -> None:
    """Full jitter under twice the last limit, up to a bound."""
    seen = [longest(kind, faults, others=False) for faults in (1, 3, 5, 30)]
    bounds = [min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2**faults) for faults in (1, 3, 5, 30)]
    assert all(bound / 2 < one <= bound for one, bound in zip(seen, bounds, strict=True))


@pytest.mark.parametrize("kind", ["overloaded", "connection", "bad_reply"])
def test_while_others_are_answered_the_wait_stays_short(kind: FaultKind) -> None:
    """What fails one call of many is not for want of a rest."""
    assert longest(kind, 4, others=True) <= BACKOFF_SECONDS


def test_a_call_that_met_its_deadline_has_waited_already() -> None:
    """While others are answered it is made again at once."""
    assert longest("timeout", 3, others=True) == 0.0


def test_rate_limits_without_a_word_double_whoever_is_answered() -> None:
    """There the load is what is wrong."""
    assert longest("rate_limited", 4, others=True) > 4 * BACKOFF_SECONDS
