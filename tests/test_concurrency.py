"""The gate: slow start, down on rate limits alone, up again only where it is used."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.engine.concurrency import COOL_DOWN_S, Gate


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def clean_round(gate: Gate) -> None:
    """As many good calls at once as are allowed."""
    calls = gate.limit

    async def call() -> None:
        async with gate:
            await asyncio.sleep(0)
            gate.succeeded()

    await asyncio.gather(*(call() for _ in range(calls)))


async def test_it_starts_slowly_and_doubles_up_to_the_ceiling() -> None:
    """8, 16, 32, ... with each clean round, and never more than the recipe's concurrency."""
    gate = Gate(50, start=8)
    seen = [gate.limit]
    for _ in range(5):
        await clean_round(gate)
        seen.append(gate.limit)
    assert seen == [8, 16, 32, 50, 50, 50]


async def test_without_a_start_it_is_open_at_once() -> None:
    """A server on this machine gets everything from the first call on."""
    assert Gate(64).limit == 64
    assert Gate(4, start=8).limit == 4


def refuse(gate: Gate, times: int) -> None:
    for _ in range(times):
        gate.rate_limited()


async def test_many_rate_limits_lower_it_once_per_cool_down() -> None:
    """The refusals of one burst are one signal; after the cool-down the next burst counts."""
    clock = Clock()
    gate = Gate(100, clock=clock)
    refuse(gate, 90)
    assert gate.limit == 80
    clock.now += COOL_DOWN_S
    refuse(gate, 8)
    assert gate.limit == 64
    for _ in range(100):
        clock.now += COOL_DOWN_S
        refuse(gate, 7)
    assert gate.limit == 1


async def test_few_rate_limits_among_many_replies_change_nothing() -> None:
    """A server that refuses one call in twenty at any load is used to the full."""
    clock = Clock()
    gate = Gate(100, clock=clock)
    for _ in range(50):
        for _ in range(5):
            gate.rate_limited()
            for _ in range(19):
                gate.succeeded()
        clock.now += 1.0
    assert gate.limit == 100


@pytest.mark.parametrize("limit", [1, 5, 10])
async def test_where_few_are_allowed_one_rate_limit_is_a_share(limit: int) -> None:
    """Below eleven calls at once the first refusal lowers the limit."""
    gate = Gate(limit)
    gate.rate_limited()
    assert gate.limit == max(1, int(limit * 0.8))


async def test_one_rate_limit_ends_the_slow_start() -> None:
    """It tells that the server has a limit: from now on the way up is gentle."""
    gate = Gate(200, start=64)
    gate.rate_limited()
    await clean_round(gate)
    assert gate.limit == 67


async def test_after_a_fall_it_rises_by_a_twentieth_per_clean_round() -> None:
    """And not before the cool-down is over."""
    clock = Clock()
    gate = Gate(100, clock=clock)
    refuse(gate, 10)
    await clean_round(gate)
    assert gate.limit == 80
    clock.now += COOL_DOWN_S
    await clean_round(gate)
    assert gate.limit == 84
    await clean_round(gate)
    assert gate.limit == 88


async def test_a_round_with_a_twentieth_of_rate_limits_does_not_raise_it() -> None:
    """Between clean and too many the limit stays where it is."""
    clock = Clock()
    gate = Gate(100, clock=clock)
    refuse(gate, 10)
    clock.now += COOL_DOWN_S
    refuse(gate, 4)
    await clean_round(gate)
    assert gate.limit == 80


async def test_what_goes_ahead_is_let_in_first() -> None:
    """A call that is made again does not queue behind those that were never made."""
    gate = Gate(1)
    order: list[str] = []

    async def call(name: str, ahead: bool) -> None:
        await gate.enter(ahead=ahead)
        order.append(name)
        await asyncio.sleep(0)
        gate.leave()

    await asyncio.gather(
        *(call(name, name == "again") for name in ("first", "second", "third", "again"))
    )
    assert order == ["first", "again", "second", "third"]


async def test_an_unused_limit_does_not_rise() -> None:
    """Good replies at half the allowed concurrency say nothing about the whole."""
    gate = Gate(100, start=10)

    async def call() -> None:
        async with gate:
            await asyncio.sleep(0)
            gate.succeeded()

    for _ in range(10):
        await asyncio.gather(*(call() for _ in range(5)))
    assert gate.limit == 10


async def test_cancelled_waiters_block_nobody() -> None:
    """A place given to a task that was cancelled goes to the next, and none is lost."""
    gate = Gate(1)
    order: list[int] = []

    async def call(n: int) -> None:
        async with gate:
            order.append(n)
            await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(call(n)) for n in range(6)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 3, 4, 5]
    assert gate.in_use == 0
    async with gate:
        assert gate.in_use == 1


@settings(max_examples=50, deadline=None)
@given(
    ceiling=st.integers(1, 40),
    start=st.integers(1, 40),
    signals=st.lists(st.sampled_from(["good", "good", "good", "limited", "cancel"]), max_size=120),
)
def test_never_more_than_allowed(ceiling: int, start: int, signals: list[str]) -> None:
    """Whatever happens, calls at once stay within the limit of their time, and all end."""

    async def run() -> None:
        clock = Clock()
        gate = Gate(ceiling, start=start, clock=clock)
        highest = 0

        async def call(signal: str) -> None:
            nonlocal highest
            async with gate:
                highest = max(highest, gate.in_use)
                await asyncio.sleep(0)
                clock.now += 1.0
                if signal == "limited":
                    gate.rate_limited()
                else:
                    gate.succeeded()

        tasks = [asyncio.create_task(call(signal)) for signal in signals]
        await asyncio.sleep(0)
        for task, signal in zip(tasks, signals, strict=True):
            if signal == "cancel":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.in_use == 0
        assert highest <= ceiling
        assert 1 <= gate.limit <= ceiling

    asyncio.run(run())
