"""Patience with a batch API: calls that steer a batch are repeated until they work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from selfinstruct.core.errors import TeacherError, TeacherFault

T = TypeVar("T")
# Before anything has worked, an unreachable server is a wrong address; afterwards a batch that is
# worked on for a day is worth two hours of patience.
FIRST_CONTACT, PATIENCE = 3, 120


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """How often to ask, in seconds.

    A batch is asked after every `first` seconds, then ever more rarely down to every `limit`.
    After `settle` seconds, a batch that was created is sure to be in the provider's list.
    """

    first: float = 5.0
    limit: float = 60.0
    settle: float = 60.0


class Patience:
    """Repeats calls through passing faults.

    Args:
        teacher: the teacher's id, for messages.
        poll: how long to wait in between.
    """

    def __init__(self, teacher: str, poll: Poll) -> None:
        self._teacher = teacher
        self._poll = poll
        self._reached = False

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` gives, repeated as it takes. Raises `TeacherError` where it never will."""
        tries = 0
        while True:
            try:
                value = await call()
            except TeacherFault as fault:
                tries += 1
                await self.wait_out(fault, tries)
            else:
                self._reached = True
                return value

    async def wait_out(self, fault: TeacherFault, tries: int) -> None:
        """Wait before the next try. Raises `TeacherError` where trying again is of no use."""
        if not fault.retryable:
            raise self.refusal(fault)
        if tries >= (PATIENCE if self._reached else FIRST_CONTACT):
            raise TeacherError(
                f"teacher {self._teacher}: the batch API cannot be reached ({fault.message}); what "
                "was submitted goes on there, and the same command takes it up again"
            )
        most = min(self._poll.limit, self._poll.first * 2.0 ** min(tries - 1, 20))
        wait = random.uniform(most / 2, most) if fault.retry_after is None else fault.retry_after
        await asyncio.sleep(wait)

    def refusal(self, fault: TeacherFault) -> TeacherError:
        """The error of a fault that would meet every other call too."""
        advice = {
            "out_of_money": "add credit at the provider, then give the same command again",
            "unauthorized": "check the key in the variable that api_key_env names",
            "not_found": "use the key and base_url that the batch was submitted with; where the "
            "provider has deleted it: selfinstruct batches RUN --forget TEACHER",
        }.get(fault.kind, "mend that, then give the same command again")
        return TeacherError(
            f"teacher {self._teacher}: the batch API refused: {fault.message}; {advice}"
        )
