"""The sliding window: work finishes in any order, is judged in slot order, and the result is the
same at any speed.

Slots are numbered from 0. Slot i may start once all slots up to i - width are judged, so what it
may know of the run is fixed, whatever the order of arrival. A barrier per round would fix it too,
but would wait for the slowest call of every round.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from selfinstruct.core.errors import SelfInstructError

Result = TypeVar("Result")
# New objects after which Python looks for garbage cycles while slots are at work; its own 700 come
# about with every few calls, and looking took a seventh of a run's processor time.
GARBAGE = 50_000


class SlidingWindow(Generic[Result]):
    """Runs slots until `judge` says that it has enough.

    Args:
        first: the first slot; all before it are judged.
        width: how far past the last judged slot a slot may start.
        concurrency: slots at work at once.
        work: does a slot, in any order. A `SelfInstructError` from it stops the run: no further
            slot starts, those under way finish (they are paid for), then it is raised.
        judge: takes a slot's result, in slot order; returns False when no more are wanted.
        may_open: whether to start another slot now, given how many are open (started and not yet
            judged). It saves money, and does not change the result.
    """

    def __init__(
        self,
        *,
        first: int,
        width: int,
        concurrency: int,
        work: Callable[[int], Awaitable[Result]],
        judge: Callable[[int, Result], bool],
        may_open: Callable[[int], bool],
    ) -> None:
        self._next = first
        self._judged = first - 1
        self._width = width
        self._concurrency = concurrency
        self._work = work
        self._judge = judge
        self._may_open = may_open
        self._results: dict[int, Result] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._stopped = False
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Work until `judge` has enough, `stop` was called, or a slot failed."""
        with _rarer_collections():
            self._pump()
            try:
                await self._idle.wait()
            except asyncio.CancelledError:
                self._stopped = True
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                raise
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Start no further slot; `run` returns when those under way have finished."""
        self._stopped = True
        self._pump()

    def _pump(self) -> None:
        """Start what may start; wake `run` when nothing is left to wait for."""
        while self._may_start():
            slot = self._next
            self._next += 1
            task = asyncio.create_task(self._one(slot), name=f"slot {slot}")
            self._tasks.add(task)
            task.add_done_callback(self._finished)
        if not self._tasks:
            self._idle.set()

    def _may_start(self) -> bool:
        return (
            not self._stopped
            and len(self._tasks) < self._concurrency
            and self._next <= self._judged + self._width
            and self._may_open(self._next - self._judged - 1)
        )

    async def _one(self, slot: int) -> None:
        self._results[slot] = await self._work(slot)
        while not self._stopped and self._judged + 1 in self._results:
            self._judged += 1
            if not self._judge(self._judged, self._results.pop(self._judged)):
                self._stopped = True

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._stopped = True
            # The first expected error says most; anything unexpected goes before it.
            if self._error is None or not isinstance(error, SelfInstructError):
                self._error = error
        self._pump()


@contextlib.contextmanager
def _rarer_collections() -> Iterator[None]:
    """Look for garbage cycles less often until the block is left.

    Nearly everything that a slot makes is freed with its last reference.
    """
    before = gc.get_threshold()
    if before[0]:  # else somebody has switched them off
        gc.set_threshold(max(before[0], GARBAGE), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
