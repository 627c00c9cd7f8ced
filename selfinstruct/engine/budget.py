"""The money cap: the worst case of every call is reserved before it is sent, so the cap is never
passed, whatever the replies turn out to cost.
"""

from __future__ import annotations

import asyncio

from selfinstruct.core.errors import CapReached
from selfinstruct.core.money import show


class Budget:
    """What was spent and what is reserved, in picodollars.

    Args:
        cap: what may be spent at most, or None for no limit.
        spent: what earlier sessions spent; what is not known for sure at its worst case.
    """

    def __init__(self, cap: int | None, spent: int = 0) -> None:
        self.cap = cap
        self.spent = spent
        self.reserved = 0
        self._settled = asyncio.Event()

    async def reserve(self, amount: int) -> None:
        """Set `amount` aside, waiting for calls in flight to give back what they did not need.

        Raises `CapReached` when it will not fit even after everything in flight has settled.
        """
        while self.cap is not None and self.spent + self.reserved + amount > self.cap:
            if not self.reserved:
                raise CapReached(
                    f"the cap of {show(self.cap)} is reached: {show(self.spent)} spent, and the "
                    f"next call could cost {show(amount)}; raise it with --max-cost to continue"
                )
            self._settled.clear()
            await self._settled.wait()
        self.reserved += amount

    def settle(self, reserved: int, cost: int) -> None:
        """Replace a reservation by what the call really cost."""
        self.reserved -= reserved
        self.spent += cost
        self._settled.set()
