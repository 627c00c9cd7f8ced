"""The dispatcher: every attempt booked, faults by kind, and the cap never passed."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import CapReached, Interrupted, TeacherError, TeacherFault
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Completion, Message, Request, Sampling, Usage
from selfinstruct.engine import dispatch, health, retries
from selfinstruct.engine.accounts import funnel, spent
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.concurrency import Gate
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.health import Health
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.route import Route
from selfinstruct.steps.costs.pricing import Rate, worst_case
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.testing.fake_server import Running
from selfinstruct.testing.mortal import Mortal

RATE = Rate(input=2, output=3, cached=1, cache_write=2)


class Teacher:
    """A teacher whose attempts follow a script: a fault to raise, or None to answer."""

    id = "fake"
    model = "m"

    def __init__(self, script: Callable[[int], TeacherFault | None]) -> None:
        self.script = script
        self.attempts = 0
        self.billed = 0

    async def __call__(self, request: Request) -> Completion:
        """Make one attempt."""
        self.attempts += 1
        number = self.attempts
        await asyncio.sleep(0)
        fault = self.script(number)
        if fault is not None:
            raise fault
        usage = Usage(input=10, output=random.randint(1, request.sampling.max_tokens))
        self.billed += usage.input * RATE.input + usage.output * RATE.output
        return Completion(request_id=request.id, text="ok", finish="stop", usage=usage)

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def user_header(self) -> str:
        """None."""
        return ""


def request(n: int = 0) -> Request:
    """The n-th request."""
    return make_request(
        teacher="fake",
        model="m",
        sampling=Sampling(max_tokens=20),
        messages=(Message("user", f"hello {n}"),),
        sample=n,
        slot=n,
    )


def route(teacher: Teacher, **changes: object) -> Route:
    """A route to a teacher with quick limits."""
    settings = {"max_attempts": 3, "timeout_s": 5.0, "gate": Gate(8)} | changes
    return Route(teacher=teacher, rate=RATE, **settings)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff without waiting."""
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.0)


async def test_a_call_is_paid_once(tmp_path: Path) -> None:
    """The completion is priced and recorded; asking again makes no attempt."""
    teacher = Teacher(lambda n: None)
    with Ledger(tmp_path / "run.db") as ledger:
        budget = Budget(None)
        dispatcher = Dispatcher(ledger, budget, "generate")
        first = await dispatcher.call(route(teacher), request())
        assert await dispatcher.call(route(teacher), request()) == first
        assert teacher.attempts == 1
        assert first.cost == teacher.billed == spent(ledger) == budget.spent
        assert budget.reserved == 0


@pytest.mark.parametrize(
    ("kind", "billed"),
    [("overloaded", "no"), ("timeout", "maybe"), ("bad_reply", "yes"), ("rate_limited", "no")],
)
async def test_passing_faults_are_tried_again(tmp_path: Path, kind: str, billed: str) -> None:
    """A fault that may pass is retried; an attempt that may have been billed is in the bill."""
    teacher = Teacher(
        lambda n: TeacherFault(kind, "no", billed=billed) if n < 3 else None  # type: ignore[arg-type]
    )
    with Ledger(tmp_path / "run.db") as ledger:
        completion = await Dispatcher(ledger, Budget(None), "generate").call(
            route(teacher), request()
        )
        assert completion.text == "ok"
        assert teacher.attempts == 3
        reserved = 0 if billed == "no" else 2 * worst_case(RATE, request())
        assert spent(ledger) == completion.cost + reserved


async def test_a_request_that_cannot_succeed_is_recorded_once(tmp_path: Path) -> None:
    """A refused request comes back as failed, and is not sent again by a later session."""
    teacher = Teacher(lambda n: TeacherFault("bad_request", "too odd", status=400))
    for _ in range(2):
        with Ledger(tmp_path / "run.db") as ledger:
            completion = await Dispatcher(ledger, Budget(None), "generate").call(
                route(teacher), request()
            )
            assert completion.finish == "failed"
            assert completion.error == "bad_request: too odd"
    assert teacher.attempts == 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("unauthorized", "check the key"),
        ("not_found", "check the recipe's model"),
        ("out_of_money", "add credit"),
    ],
)
async def test_faults_that_would_meet_every_request_stop(
    tmp_path: Path, kind: str, says: str
) -> None:
    """No key, no model, no money: one clear error and no second attempt."""
    teacher = Teacher(lambda n: TeacherFault(kind, "no", status=401))  # type: ignore[arg-type]
    with (
        Ledger(tmp_path / "run.db") as ledger,
        pytest.raises(TeacherError, match=says),
    ):
        await Dispatcher(ledger, Budget(None), "generate").call(route(teacher), request())
    assert teacher.attempts == 1


async def test_a_server_that_is_not_there_is_said_soon(tmp_path: Path) -> None:
    """Before anything has worked, a refused connection is not retried for minutes."""
    teacher = Teacher(lambda n: TeacherFault("connection", "refused"))
    with (
        Ledger(tmp_path / "run.db") as ledger,
        pytest.raises(TeacherError, match="cannot be reached"),
    ):
        await Dispatcher(ledger, Budget(None), "generate").call(
            route(teacher, max_attempts=50), request()
        )
    assert teacher.attempts == retries.FIRST_CONTACT_ATTEMPTS


async def test_a_run_of_failures_breaks_the_circuit(tmp_path: Path) -> None:
    """When request after request fails for good, the run stops instead of failing them all."""
    teacher = Teacher(lambda n: TeacherFault("bad_request", "unknown field"))
    with Ledger(tmp_path / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        for n in range(retries.BREAKER - 1):
            assert (await dispatcher.call(route(teacher), request(n))).finish == "failed"
        with pytest.raises(TeacherError, match="unknown field"):
            await dispatcher.call(route(teacher), request(99))


async def test_a_stalled_call_is_given_up(tmp_path: Path) -> None:
    """The deadline holds for the whole attempt; it may have been billed."""

    class Stalled(Teacher):
        async def __call__(self, request: Request) -> Completion:
            self.attempts += 1
            await asyncio.sleep(30)
            raise AssertionError

    teacher = Stalled(lambda n: None)
    with Ledger(tmp_path / "run.db") as ledger:
        completion = await Dispatcher(ledger, Budget(None), "generate").call(
            route(teacher, timeout_s=0.02, max_attempts=2), request()
        )
        assert (completion.finish, teacher.attempts) == ("failed", 2)
        assert spent(ledger) == 2 * worst_case(RATE, request())


async def test_stop_ends_waiting_and_makes_no_call(tmp_path: Path) -> None:
    """After `stop`, a call waiting to be repeated ends at once, and new ones are not made."""
    teacher = Teacher(lambda n: TeacherFault("rate_limited", "wait", retry_after=60))
    with Ledger(tmp_path / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        asyncio.get_running_loop().call_later(0.05, dispatcher.stop)
        with pytest.raises(Interrupted):
            await dispatcher.call(route(teacher), request())
        with pytest.raises(Interrupted):
            await dispatcher.call(route(teacher), request(1))
    assert teacher.attempts == 1


# -- a server that goes away -------------------------------------------------------------------


def over_http(url: str, **changes: object) -> Route:
    """A route to a fake server."""
    client = CompatibleTeacher(
        id="fake", model="m", base_url=f"{url}/v1", timeout_s=2, concurrency=64
    )
    settings = {"max_attempts": 4, "timeout_s": 2.0, "gate": Gate(64)} | changes
    return Route(teacher=client, rate=RATE, **settings)  # type: ignore[arg-type]


async def test_a_server_that_comes_back_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone in mid-run and back later, it gets every request; few attempts are wasted meanwhile.

    Calls wait for it however often `max_attempts` would have given them up.
    """
    monkeypatch.setattr(dispatch, "TURN_S", 0.05)
    monkeypatch.setattr(health, "PROBE_S", 0.05)
    monkeypatch.setattr(health, "PROBE_LIMIT_S", 0.2)
    with Mortal(latency_ms=20) as server, Ledger(tmp_path / "run.db") as ledger:
        way = over_http(server.url, max_attempts=2)
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        await asyncio.gather(*(dispatcher.call(way, request(n)) for n in range(20)))
        await asyncio.to_thread(server.kill)
        calls = [asyncio.create_task(dispatcher.call(way, request(n))) for n in range(20, 60)]
        await asyncio.sleep(1.5)
        assert not any(call.done() for call in calls)
        await asyncio.to_thread(server.revive)
        done = await asyncio.gather(*calls)
        assert {completion.finish for completion in done} <= {"stop", "length"}
        attempts = ledger.db.execute("SELECT count(*) FROM attempts").fetchone()[0]
        assert attempts < 60 + 2 * 40 + 2 / 0.1
        await way.close()


async def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After patience_s the run stops with one clear error, and every waiting call with it."""
    monkeypatch.setattr(dispatch, "TURN_S", 0.05)
    monkeypatch.setattr(health, "PROBE_S", 0.05)
    with Mortal() as server, Ledger(tmp_path / "run.db") as ledger:
        way = over_http(server.url, health=Health(patience_s=1.0))
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        await dispatcher.call(way, request())
        await asyncio.to_thread(server.kill)
        began = time.monotonic()
        outcomes = await asyncio.gather(
            *(dispatcher.call(way, request(n)) for n in range(1, 30)), return_exceptions=True
        )
        assert 1.0 <= time.monotonic() - began < 5
        assert all(isinstance(outcome, TeacherError) for outcome in outcomes)
        assert re.search(r"cannot be reached for \d s", str(outcomes[0]))
        assert not ledger.completion(request(1).id)  # nothing is given up for good
        await way.close()


async def test_one_bad_request_is_not_taken_for_an_absent_server(tmp_path: Path) -> None:
    """A request at which the server always fails is given up while others are answered."""

    class Allergic(Teacher):
        async def __call__(self, asked: Request) -> Completion:
            if asked.slot == 7:
                raise TeacherFault("overloaded", "HTTP 500", status=500)
            return await super().__call__(asked)

    way = route(Allergic(lambda n: None), gate=Gate(1))
    with Ledger(tmp_path / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        await dispatcher.call(way, request())

        async def others() -> None:
            for n in range(100, 200):
                await dispatcher.call(way, request(n))

        bad, _ = await asyncio.gather(dispatcher.call(way, request(7)), others())
        assert bad.finish == "failed"


# -- keys, refusals, waits ---------------------------------------------------------------------


async def test_a_key_that_expires_is_read_again_once(
    tmp_path: Path, start_fake_server: Callable[..., Running]
) -> None:
    """Calls refused with the old key are sent again with the new one; without one the run stops."""
    file = tmp_path / "key"
    file.write_text("first-key-1", "utf-8")
    running = start_fake_server(key="first-key-1")
    client = CompatibleTeacher(
        id="fake", model="m", base_url=f"{running.url}/v1", key_file=str(file)
    )
    way = route(client)  # type: ignore[arg-type]
    with Ledger(tmp_path / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        await dispatcher.call(way, request())
        running.server.options = replace(running.server.options, key="second-key-2")
        file.write_text("second-key-2", "utf-8")
        done = await asyncio.gather(*(dispatcher.call(way, request(n)) for n in range(1, 20)))
        assert {completion.finish for completion in done} <= {"stop", "length"}
        assert dispatcher.counters.faults["unauthorized"] <= 8
        running.server.options = replace(running.server.options, key="third")
        with pytest.raises(TeacherError, match="api_key_file"):
            await dispatcher.call(way, request(99))
        assert running.server.stats.by_status["401"] == dispatcher.counters.faults["unauthorized"]
        await way.close()


async def test_a_wrong_key_is_not_tried_again(tmp_path: Path) -> None:
    """Before anything has worked the key is simply wrong."""
    teacher = Teacher(lambda n: TeacherFault("unauthorized", "no", status=401))
    teacher.renew_key = lambda: True  # type: ignore[attr-defined]
    with Ledger(tmp_path / "run.db") as ledger, pytest.raises(TeacherError, match="check the key"):
        await Dispatcher(ledger, Budget(None), "generate").call(route(teacher), request())
    assert teacher.attempts == 1


async def test_refused_prompts_are_recorded_and_break_nothing(tmp_path: Path) -> None:
    """What a filter refuses counts as refused, is asked once, and does not stop the run."""
    teacher = Teacher(lambda n: TeacherFault("refused", "filtered", status=400))
    with Ledger(tmp_path / "run.db") as ledger:
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        for n in range(3 * retries.BREAKER):
            assert (await dispatcher.call(route(teacher), request(n))).finish == "content_filter"
        assert funnel(ledger).refused == teacher.attempts == 3 * retries.BREAKER


async def test_a_wait_of_hours_stops_the_run(tmp_path: Path) -> None:
    """A server that has nothing left for today says when to come back, and so does the run."""
    teacher = Teacher(lambda n: TeacherFault("rate_limited", "daily quota", retry_after=30_000))
    with (
        Ledger(tmp_path / "run.db") as ledger,
        pytest.raises(TeacherError, match=r"asks to wait 30000 s \(daily quota\)"),
    ):
        await Dispatcher(ledger, Budget(None), "generate").call(route(teacher), request())


async def test_only_rate_limits_lower_the_concurrency(tmp_path: Path) -> None:
    """A 5xx says that the server is unwell, not that it is asked too often."""
    for kind, allowed in (("overloaded", 8), ("rate_limited", 6)):
        teacher = Teacher(lambda n, kind=kind: TeacherFault(kind, "no") if n < 3 else None)  # type: ignore[misc]
        way = route(teacher)
        with Ledger(tmp_path / f"{kind}.db") as ledger:
            dispatcher = Dispatcher(ledger, Budget(None), "generate")
            await dispatcher.call(way, request())
            assert way.gate.limit == dispatcher.counters.allowed == allowed


# -- everything at once ------------------------------------------------------------------------


async def test_a_storm_of_faults_loses_nothing(
    tmp_path: Path, start_fake_server: Callable[..., Running]
) -> None:
    """Errors, rate limits, resets, garbage and stalls: every record arrives, none of them twice.

    The bill covers all that the server would charge for, useless replies included.
    """
    running = start_fake_server(
        latency_ms=5,
        faults={"500": 0.05, "429-soon": 0.05, "reset": 0.01, "invalid_json": 0.01, "stall": 0.01},
    )
    stats = running.server.stats
    with Ledger(tmp_path / "run.db") as ledger:
        way = over_http(running.url, timeout_s=0.75, max_attempts=8)
        dispatcher = Dispatcher(ledger, Budget(None), "generate")
        done = await asyncio.gather(*(dispatcher.call(way, request(n)) for n in range(400)))
        await way.close()
        assert {completion.finish for completion in done} <= {"stop", "length"}
        assert len({completion.request_id for completion in done}) == 400
        assert len(stats.served) == sum(stats.served.values()) == 400
        assert stats.calls == dispatcher.counters.calls > 430
        assert {"overloaded", "rate_limited", "bad_reply"} <= set(dispatcher.counters.faults)
        outcomes = dict(ledger.db.execute("SELECT outcome, count(*) FROM attempts GROUP BY 1"))
        assert outcomes.pop("ok") == 400
        assert outcomes == dispatcher.counters.faults
        assert ledger.db.execute("SELECT count(*) FROM completions").fetchone()[0] == 400
        assert spent(ledger) >= stats.tokens_in * RATE.input + stats.tokens_out * RATE.output


@settings(max_examples=60, deadline=None)
@given(
    cap=st.integers(0, 3000),
    concurrency=st.integers(1, 12),
    faults=st.lists(st.sampled_from(["", "", "timeout", "overloaded", "bad_reply"]), max_size=30),
)
def test_the_cap_is_never_passed(
    tmp_path_factory: pytest.TempPathFactory, cap: int, concurrency: int, faults: list[str]
) -> None:
    """Whatever replies cost and faults bill, the server's own count stays within the cap."""

    def script(n: int) -> TeacherFault | None:
        kind = faults[n % len(faults)] if faults else ""
        if not kind:
            return None
        return TeacherFault(kind, "x", billed="no" if kind == "overloaded" else "maybe")  # type: ignore[arg-type]

    async def run() -> tuple[int, int]:
        teacher = Teacher(script)
        path = tmp_path_factory.mktemp("cap") / "run.db"
        with Ledger(path) as ledger:
            dispatcher = Dispatcher(ledger, Budget(cap), "generate")
            way = route(teacher, gate=Gate(concurrency), max_attempts=2)
            calls = (dispatcher.call(way, request(n)) for n in range(24))
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            for outcome in outcomes:
                assert isinstance(outcome, (Completion, CapReached, TeacherError)), outcome
            return teacher.billed, spent(ledger)

    billed, booked = asyncio.run(run())
    assert billed <= booked <= cap
