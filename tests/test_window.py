"""The sliding window: the same result whatever the order of arrival."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import TeacherError
from selfinstruct.engine.window import SlidingWindow


async def simulate(
    width: int, concurrency: int, enough: int, seed: int, thrifty: bool = False
) -> tuple[list[tuple[int, int]], int]:
    """Run slots with random delays; each result depends on what the slot could see."""
    rng = random.Random(seed)
    judged: list[tuple[int, int]] = []
    sums: list[int] = []
    most_open = 0
    opened = 0

    async def work(slot: int) -> int:
        nonlocal opened, most_open
        opened += 1
        most_open = max(most_open, opened - len(judged))
        seen = sums[slot - width] if slot >= width else 0
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        return (seen * 31 + slot) % 1009

    def judge(slot: int, result: int) -> bool:
        judged.append((slot, result))
        sums.append((sums[-1] if sums else 0) + result)
        return len(judged) < enough

    window = SlidingWindow(
        first=0,
        width=width,
        concurrency=concurrency,
        work=work,
        judge=judge,
        may_open=lambda open_slots: not thrifty or open_slots < 2,
    )
    await window.run()
    return judged, most_open


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 64), st.integers(1, 120), st.integers(), st.booleans())
def test_speed_does_not_change_the_result(
    width: int, concurrency: int, enough: int, seed: int, thrifty: bool
) -> None:
    """Any concurrency and any order of arrival judge the same slots with the same results."""
    slow, _ = asyncio.run(simulate(width, 1, enough, 0))
    fast, most_open = asyncio.run(simulate(width, concurrency, enough, seed, thrifty))
    assert fast == slow
    assert [slot for slot, _ in fast] == list(range(enough))
    assert most_open <= width


async def test_an_error_lets_the_others_finish() -> None:
    """A slot that fails stops the run, but slots under way, which are paid for, finish first."""
    finished = []

    async def work(slot: int) -> int:
        if slot == 1:
            raise TeacherError("refused")
        await asyncio.sleep(0.01)
        finished.append(slot)
        return slot

    window = SlidingWindow(
        first=0,
        width=8,
        concurrency=4,
        work=work,
        judge=lambda slot, result: True,
        may_open=lambda open_slots: True,
    )
    with pytest.raises(TeacherError):
        await window.run()
    assert sorted(finished) == [0, 2, 3]


async def test_stop_starts_nothing_more() -> None:
    """After `stop`, slots under way finish and `run` returns."""
    started = []

    async def work(slot: int) -> int:
        started.append(slot)
        await asyncio.sleep(0.01)
        return slot

    window = SlidingWindow(
        first=5,
        width=100,
        concurrency=3,
        work=work,
        judge=lambda slot, result: True,
        may_open=lambda open_slots: True,
    )
    asyncio.get_running_loop().call_later(0.005, window.stop)
    await window.run()
    assert started == [5, 6, 7]


async def test_cancelling_cancels_the_slots() -> None:
    """A cancelled run leaves no task behind."""
    gone = []

    async def work(slot: int) -> int:
        try:
            await asyncio.sleep(10)
        finally:
            gone.append(slot)
        return slot

    window = SlidingWindow(
        first=0,
        width=4,
        concurrency=2,
        work=work,
        judge=lambda slot, result: True,
        may_open=lambda open_slots: True,
    )
    task = asyncio.create_task(window.run())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(gone) == [0, 1]


@pytest.mark.parametrize("before", [(700, 10, 10), (0, 10, 10), (1_000_000, 5, 5)])
async def test_garbage_collection_is_left_as_it_was(before: tuple[int, int, int]) -> None:
    """Cycles are looked for less often during a run; never more often, nor where it was off."""
    during = []
    old = gc.get_threshold()
    gc.set_threshold(*before)
    try:

        async def work(slot: int) -> int:
            during.append(gc.get_threshold()[0])
            return slot

        await SlidingWindow(
            first=0,
            width=4,
            concurrency=2,
            work=work,
            judge=lambda slot, result: slot < 3,
            may_open=lambda open_slots: True,
        ).run()
        after = gc.get_threshold()
    finally:
        gc.set_threshold(*old)
    assert after == before
    assert all(d >= before[0] for d in during)
    assert (during[0] == 0) == (before[0] == 0)
