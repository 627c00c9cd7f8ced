"""The money cap against a real server's own count."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import CapReached, TeacherError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Completion, Message, Request, Sampling
from selfinstruct.engine import retries
from selfinstruct.engine.accounts import spent, spent_at_most
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.concurrency import Gate
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.route import Route
from selfinstruct.steps.costs.pricing import Rate, worst_case
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.testing.fake_server import Options, Running, running

RATES = st.builds(
    lambda dear, cheap, output: Rate(input=dear, output=output, cached=cheap, cache_write=dear),
    st.integers(1, 15_000_000),
    st.integers(0, 1),
    st.integers(1, 75_000_000),
)
FAULTS = ["500", "no_usage", "truncated_json", "reset_in_body", "length", "content_filter", "reset"]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff without waiting."""
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.0)


def ask(n: int, words: int, max_tokens: int) -> Request:
    return make_request(
        teacher="compatible/m",
        model="m",
        sampling=Sampling(max_tokens=max_tokens),
        messages=(Message("user", f"Tell me about {n} " + "wide rivers " * words),),
        sample=n,
        slot=n,
    )


async def session(
    ledger: Ledger, url: str, cap: int, rate: Rate, concurrency: int, asked: list[Request]
) -> None:
    """Make the calls under `cap`, as far as it allows."""
    teacher = CompatibleTeacher(
        id="compatible/m", model="m", base_url=f"{url}/v1", concurrency=concurrency
    )
    route = Route(
        teacher=teacher, rate=rate, max_attempts=2, timeout_s=20.0, gate=Gate(concurrency)
    )
    dispatcher = Dispatcher(ledger, Budget(cap, spent_at_most(ledger)), "generate")
    calls = (dispatcher.call(route, request) for request in asked)
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, (Completion, CapReached, TeacherError)), outcome
    await route.close()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rate=RATES,
    concurrency=st.integers(1, 16),
    max_tokens=st.integers(1, 300),
    words=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    part=st.fractions(0, 1),
    faults=st.dictionaries(st.sampled_from(FAULTS), st.just(0.12), max_size=7),
    seed=st.integers(0, 10**6),
)
def test_no_run_spends_more_than_its_cap(
    tmp_path_factory: pytest.TempPathFactory,
    rate: Rate,
    concurrency: int,
    max_tokens: int,
    words: list[int],
    part: object,
    faults: dict[str, float],
    seed: int,
) -> None:
    """Whatever prices, concurrency, sizes and faults are: by the server's own count, never.

    Nor by a session that goes on under the same cap.
    """
    asked = [ask(n, count, max_tokens) for n, count in enumerate(words)]
    cap = int(part * sum(worst_case(rate, request) for request in asked))  # type: ignore[operator]
    path = tmp_path_factory.mktemp("cap") / "run.db"
    with running(Options(seed=seed, faults=faults)) as server:
        for half in (asked[::2], asked):
            with Ledger(path) as ledger:
                asyncio.run(session(ledger, server.url, cap, rate, concurrency, half))
                booked, at_most = spent(ledger), spent_at_most(ledger)
        stats = server.server.stats
    billed = stats.tokens_in * rate.input + stats.tokens_out * rate.output
    assert billed <= at_most <= cap
    assert booked <= at_most


async def test_a_call_without_usage_counts_at_its_worst(
    tmp_path: Path, fake_server: Running
) -> None:
    """Its line on the bill is an estimate, which the cap must not rely on; nor a later session."""
    fake_server.server.options = Options(script=("no_usage",))
    rate = Rate(input=2, output=3, cached=2, cache_write=2)
    first, second = ask(0, 5, 400), ask(1, 5, 400)
    cap = worst_case(rate, first) + worst_case(rate, second) - 1
    with Ledger(tmp_path / "run.db") as ledger:
        await session(ledger, fake_server.url, cap, rate, 1, [first, second])
        assert fake_server.server.stats.calls == 1
        assert spent_at_most(ledger) == worst_case(rate, first) > spent(ledger) > 0
    with Ledger(tmp_path / "run.db") as ledger:
        await session(ledger, fake_server.url, cap, rate, 1, [second])
        assert fake_server.server.stats.calls == 1
        await session(ledger, fake_server.url, cap + 1, rate, 1, [second])
        assert fake_server.server.stats.calls == 2
