"""Requests and tokens per minute: from the recipe, and from what a server says in its headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Request, Sampling, Teacher, Usage
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.concurrency import Gate
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.limits import Bucket, Pacer, per_minute
from selfinstruct.engine.route import Route
from selfinstruct.steps.costs.pricing import FREE
from selfinstruct.steps.teachers import limits
from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.steps.teachers.limits import Allowance, Limits
from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher
from selfinstruct.testing.fake_server import Running

Start = Callable[..., Running]


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def request(n: int = 0, max_tokens: int = 20) -> Request:
    """The n-th request: a prompt of 10 tokens by the pacer's count."""
    return make_request(
        teacher="t",
        model="m",
        sampling=Sampling(max_tokens=max_tokens),
        messages=(Message("user", f"{n:036}"),),
        sample=n,
        slot=n,
    )


def make(kind: str, url: str) -> Teacher:
    """A teacher of each client."""
    if kind == "anthropic":
        return AnthropicTeacher(id="t", model="m", base_url=url)
    cls = OpenAITeacher if kind == "openai" else CompatibleTeacher
    return cls(id="t", model="m", base_url=f"{url}/v1")


# -- what headers say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("8.64s", 8.64),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("17", 17.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("6m and then", None),
        ("nan", None),
        ("2026-13-45T99:00:00Z", None),
    ],
)
def test_spans_are_read_as_openai_writes_them(text: str | None, expected: float | None) -> None:
    """Units may be combined; what is no span is None rather than a guess."""
    assert limits.seconds(text) == pytest.approx(expected)


def test_resets_are_read_as_anthropic_writes_them() -> None:
    """RFC 3339 times are seconds from now, never negative."""
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat().replace("+00:00", "Z")
    assert limits.seconds(soon) == pytest.approx(30, abs=1)
    assert limits.seconds("2020-01-01T00:00:00Z") == 0.0


def test_openais_headers() -> None:
    """Requests and tokens, each with limit, remaining and reset."""
    headers = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "800000",
        "x-ratelimit-remaining-tokens": "799000",
        "x-ratelimit-reset-tokens": "75ms",
    }
    assert limits.read(headers) == Limits(
        requests=Allowance(5000, 4999, 0.012), tokens=Allowance(800000, 799000, 0.075)
    )


def test_anthropics_headers() -> None:
    """Input and output tokens apart."""
    headers = {
        f"anthropic-ratelimit-{what}-{field}": value
        for what, left in (("requests", "49"), ("input-tokens", "29000"), ("output-tokens", "7000"))
        for field, value in (("limit", "50000"), ("remaining", left))
    }
    said = limits.read(headers)
    assert said is not None
    assert said.requests == Allowance(50000, 49)
    assert said.input_tokens == Allowance(50000, 29000)
    assert said.output_tokens == Allowance(50000, 7000)
    assert said.tokens is None


@pytest.mark.parametrize("bad", ["-1", "0", "", "unlimited", "inf"])
def test_headers_that_state_no_limit(bad: str) -> None:
    """A proxy's "no limit" is none, and a server without headers says nothing."""
    said = limits.read({"x-ratelimit-limit-requests": bad, "x-ratelimit-remaining-requests": "1"})
    assert said == Limits()
    assert limits.read({"content-type": "application/json"}) is None


@pytest.mark.parametrize("kind", ["compatible", "openai", "anthropic"])
async def test_every_client_reads_them_from_good_and_bad_replies(
    start_fake_server: Start, kind: str
) -> None:
    """What is left goes down with each call, and a refusal's headers count too."""
    server = start_fake_server(requests=2, window_s=600)
    teacher = make(kind, server.url)
    await teacher.start()
    try:
        left = []
        for n in range(3):
            await asyncio.gather(teacher(request(n)), return_exceptions=True)
            said: Limits | None = teacher.limits  # type: ignore[attr-defined]
            assert said is not None
            assert said.requests is not None
            assert said.requests.limit == 2
            left.append(said.requests.remaining)
            assert said.requests.reset_s == pytest.approx(300 * (2 - left[-1]), abs=5)
        assert left == [1, 0, 0]
        assert server.server.stats.by_status["429"] == 1
    finally:
        await teacher.close()


# -- buckets ------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 3000),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=400),
)
def test_no_minute_gets_more_than_the_limit(limit: int, gaps: list[float]) -> None:
    """Whenever calls come, no 60 seconds hold more of them than allowed, and the order is kept."""
    bucket = per_minute(limit, 0.0)
    now, sent = 0.0, []
    for gap in gaps:
        now += gap
        sent.append(now + bucket.take(1, now))
    assert sent == sorted(sent)
    for n in range(len(sent) - limit):
        assert sent[n + limit] - sent[n] >= 60 * (1 - 1e-9)


def test_a_call_larger_than_the_bucket_passes_when_it_is_full() -> None:
    """It is not stuck for ever; those after it wait for what it took."""
    bucket = Bucket(10, 1.0, 0.0)
    assert bucket.take(25, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(16)


def test_a_bucket_agrees_with_the_server() -> None:
    """Down to what is left, up to what is left less what is promised, at the rate it comes back."""
    bucket = Bucket(100, 1.0, 0.0)
    bucket.learn(Allowance(100, 10, 45), promised=0, now=0.0)
    assert (bucket.level, bucket.rate) == (10, 2.0)
    bucket.level = -50
    bucket.learn(Allowance(100, 30, None), promised=8, now=0.0)
    assert (bucket.level, bucket.rate) == (22, 2.0)


def test_tokens_that_were_not_needed_come_back() -> None:
    """A call takes its longest reply out; its usage puts the rest back, and teaches the mean."""
    clock = Clock()
    pacer = Pacer(tokens_per_minute=60_000, clock=clock)
    needs, wait = pacer.take(request(0, max_tokens=990))
    assert (needs.input, needs.output, wait) == (10, 990, 0.0)
    _, wait = pacer.take(request(1, max_tokens=990))
    assert wait > 0.9
    pacer.settle(needs, Usage(input=10, output=90))
    learnt, _ = pacer.take(request(2, max_tokens=990))
    assert learnt.output == 90


def test_a_cancelled_call_takes_nothing() -> None:
    """Neither a request nor its tokens."""
    clock = Clock()
    pacer = Pacer(requests_per_minute=60, clock=clock)
    needs, _ = pacer.take(request())
    pacer.cancel(needs)
    assert pacer.take(request())[1] == 0.0


def test_a_wrong_header_does_not_hold_the_run() -> None:
    """A server that says "nothing left" is asked again after a minute at most."""
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.learn(Limits(requests=Allowance(10, 0, 86400)))
    assert pacer.take(request())[1] == 60.0


# -- over HTTP ----------------------------------------------------------------------------------


async def run(folder: Path, route: Route, calls: int) -> float:
    """Make so many calls through a dispatcher; the seconds it took."""
    with Ledger(folder / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        began = time.monotonic()
        try:
            done = await asyncio.gather(*(dispatcher.call(route, request(n)) for n in range(calls)))
        finally:
            await route.close()
        assert {completion.finish for completion in done} <= {"stop", "length"}
        return time.monotonic() - began


def route_to(url: str, pacer: Pacer | None = None, kind: str = "compatible") -> Route:
    return Route(
        teacher=make(kind, url),
        rate=FREE,
        max_attempts=3,
        timeout_s=20,
        gate=Gate(16),
        pacer=pacer or Pacer(),
    )


async def test_the_recipes_rate_is_kept(tmp_path: Path, start_fake_server: Start) -> None:
    """At 600 requests per minute, 30 calls take two seconds after the first ten."""
    server = start_fake_server()
    seconds = await run(tmp_path, route_to(server.url, Pacer(requests_per_minute=600)), 30)
    assert 1.9 < seconds < 4
    assert server.server.stats.calls == 30


async def test_a_token_rate_is_kept(tmp_path: Path, start_fake_server: Start) -> None:
    """Tokens that the server counts stay within the recipe's rate."""
    server = start_fake_server()
    pacer = Pacer(tokens_per_minute=6000)
    seconds = await run(tmp_path, route_to(server.url, pacer), 12)
    stats = server.server.stats
    used = stats.tokens_in + stats.tokens_out
    assert used - 130 <= 100 * seconds  # one second's burst, and the call that began before
    assert seconds > 1


@pytest.mark.parametrize("kind", ["compatible", "anthropic"])
async def test_a_servers_limit_is_learnt(
    tmp_path: Path, start_fake_server: Start, kind: str
) -> None:
    """After its first replies a server that allows 20 calls in 2 s is hardly ever asked too soon.

    With nothing but its refusals to go by, a burst of 60 calls would meet dozens of them.
    """
    server = start_fake_server(requests=20, window_s=2)
    seconds = await run(tmp_path, route_to(server.url, kind=kind), 60)
    assert seconds > 3.5
    assert server.server.stats.by_status["429"] <= 6


async def test_retry_after_is_for_one_request(tmp_path: Path, start_fake_server: Start) -> None:
    """While one call waits as long as it was told, the others go on."""
    server = start_fake_server(script=("429-after",))
    route = route_to(server.url)
    with Ledger(tmp_path / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        began = time.monotonic()

        async def call(n: int) -> float:
            await dispatcher.call(route, request(n))
            return time.monotonic() - began

        refused = asyncio.create_task(call(0))
        await asyncio.sleep(0.1)
        others = await asyncio.gather(*(call(n) for n in range(1, 20)))
        assert max(others) < 0.9
        assert 1.0 <= await refused < 2.5
        await route.close()
