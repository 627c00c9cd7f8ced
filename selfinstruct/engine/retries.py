"""When a failed attempt is made again, after how long, and when it says that the run must stop."""

from __future__ import annotations

import random

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Teacher
from selfinstruct.engine.health import AWAY, Health

BACKOFF_SECONDS, BACKOFF_LIMIT = 0.5, 30.0
# A server that asks for patience is not failing: its refusals have a limit of their own.
RATE_LIMIT_ATTEMPTS = 100
# A server that asks for more than this has no capacity today: better to stop and say so.
LONGEST_RETRY_AFTER_S = 3600.0
# Before anything has worked, an unreachable server is a wrong address rather than a bad moment.
FIRST_CONTACT_ATTEMPTS = 3
# So many requests in a row given up for the same reason mean that the reason is not theirs.
BREAKER = 5
# Prompts that are too long cost nothing and are asked again with fewer examples.
BREAKER_OVERFLOW = 100


class Tries(msgspec.Struct):
    """What one request has been through; `answers` is the route's count of good replies then."""

    answers: int = 0
    others_answered: bool = False
    failed: int = 0
    limited: int = 0

    @property
    def again(self) -> bool:
        """Whether this is not the first attempt."""
        return bool(self.failed or self.limited)

    def count(self, fault: TeacherFault, health: Health) -> None:
        """Count a fault; a rate limit is no failure."""
        self.others_answered = health.answers > self.answers
        self.answers = health.answers
        if fault.kind == "rate_limited":
            self.limited += 1
        else:
            self.failed += 1


def exhausted(fault: TeacherFault, tries: Tries, health: Health, max_attempts: int) -> bool:
    """Whether a fault that may pass has come often enough."""
    if fault.kind == "rate_limited":
        return tries.limited >= RATE_LIMIT_ATTEMPTS or asks_too_much(fault, health)
    if fault.kind not in AWAY:
        return tries.failed >= max_attempts
    if not health.reached:
        first = FIRST_CONTACT_ATTEMPTS if fault.kind == "connection" else max_attempts
        return tries.failed >= min(first, max_attempts)
    # While the server answers nobody, it is away; when it answers others, it is this request.
    often = tries.failed >= max_attempts and tries.others_answered and not health.away
    return often or health.lost


def asks_too_much(fault: TeacherFault, health: Health) -> bool:
    """Whether the server asked for a wait that is no pause any more."""
    wait = fault.retry_after
    return wait is not None and wait > max(LONGEST_RETRY_AFTER_S, health.patience_s)


def delay(fault: TeacherFault, tries: Tries) -> float:
    """Seconds until the next attempt: the server's word, else full jitter under a doubling limit.

    While others are answered the server is not swamped, and there is little to wait for: the limit
    of a failed attempt stays where it began, and one that met its deadline has waited already.

    Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """
    if fault.retry_after is not None:
        return fault.retry_after + random.uniform(0, 0.1)
    if fault.kind == "rate_limited":
        times = min(tries.limited, 6)
    elif tries.others_answered:
        times = 0
        if fault.kind == "timeout":
            return 0.0
    else:
        times = min(tries.failed, 10)
    return random.uniform(0, min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2.0**times))


def refused_all(teacher: Teacher, fault: TeacherFault, health: Health) -> str:
    """Why every other request would fail as this one did; "" where that is not known."""
    who = f"teacher {teacher.id}"
    if fault.stops_the_run:
        advice = {
            "out_of_money": "add credit at the provider, then give the same command again",
            "unauthorized": "check the key that api_key_env or api_key_file names",
            "not_found": "check the recipe's model and base_url",
        }[fault.kind]
        status = f" (HTTP {fault.status})" if fault.status else ""
        return f"{who}: refused model {teacher.model!r}{status}: {fault.message}; {advice}"
    if asks_too_much(fault, health):
        return (
            f"{who}: the server asks to wait {fault.retry_after:.0f} s ({fault.message}); "
            "give the same command again then"
        )
    if fault.kind == "connection" and (health.lost or not health.reached):
        away = f" for {health.away_s:.0f} s" if health.reached else ""
        return (
            f"{who}: cannot be reached{away} ({fault.message}); "
            "start the server or correct base_url, then give the same command again"
        )
    return ""


def given_up_too_often(teacher: Teacher, fault: TeacherFault, count: int) -> str:
    """Why the run stops after `count` requests in a row failed this way; "" while it goes on."""
    # What a content filter refuses is its own affair, and is recorded as such.
    most = {"refused": None, "context_overflow": BREAKER_OVERFLOW}.get(fault.kind, BREAKER)
    if most is None or count < most:
        return ""
    return (
        f"teacher {teacher.id}: {count} requests in a row failed for good, the last with: "
        f"{fault.message}; mend that, then give the same command again"
    )
