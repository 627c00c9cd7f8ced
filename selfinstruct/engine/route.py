"""A route: a teacher, and what bounds the calls to it."""

from __future__ import annotations

import asyncio

import msgspec

from selfinstruct.core.types import Teacher
from selfinstruct.engine.concurrency import Gate
from selfinstruct.engine.health import Health
from selfinstruct.engine.limits import Pacer
from selfinstruct.steps.costs.pricing import Rate


class Route(msgspec.Struct, kw_only=True):
    """A teacher with its price and its limits. It is started by the first call."""

    teacher: Teacher
    rate: Rate
    max_attempts: int
    timeout_s: float
    gate: Gate
    pacer: Pacer = msgspec.field(default_factory=Pacer)
    health: Health = msgspec.field(default_factory=Health)
    start_lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    started: bool = False
    keys: int = 0
    """How often the key was renewed."""

    async def start(self) -> None:
        """Start the teacher, once. Raises `TeacherError` or `UserError`."""
        if self.started:
            return
        async with self.start_lock:
            if not self.started:
                await self.teacher.start()
                self.started = True

    async def close(self) -> None:
        """Stop the teacher, if it was started."""
        if self.started:
            await self.teacher.close()
            self.started = False

    def renew_key(self, sent_with: int) -> bool:
        """Read the key again after the server refused it; whether there is a new one.

        `sent_with` is what `keys` was when the refused call was sent: of all the calls in flight,
        only the first reads.
        """
        if sent_with < self.keys:
            return True
        renew = getattr(self.teacher, "renew_key", None)
        if renew is None or not self.health.reached or not renew():
            return False
        self.keys += 1
        return True
