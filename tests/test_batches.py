"""Batches: each request answered once, submitted once, at half the price, through every fault."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import CapReached, TeacherError, TeacherFault
from selfinstruct.core.types import Completion, Request, Usage
from selfinstruct.engine.accounts import bill, spent
from selfinstruct.engine.batch_admin import cancel_batches, forget_batches, open_batches
from selfinstruct.engine.batches import Poll, run_batch
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.costs.pricing import cost, worst_case
from selfinstruct.steps.teachers.batch import (
    BatchClient,
    Found,
    Limits,
    Outcome,
    Status,
)
from selfinstruct.steps.teachers.batch_client import batch_client
from selfinstruct.testing import batches
from selfinstruct.testing.fake_server import Running
from tests.batch_child import KILLED, POLL, RATE, STEPS, request, teacher
from tests.test_kill import server_process, stats

START = Callable[..., Running]
PROVIDERS = ("openai", "anthropic")
both = pytest.mark.parametrize("provider", PROVIDERS)


@contextlib.asynccontextmanager
async def client_of(provider: str, url: str) -> AsyncIterator[BatchClient]:
    """The batch API of a started teacher."""
    made = teacher(provider, url)
    await made.start()
    client = batch_client(made)
    assert client is not None
    try:
        yield client
    finally:
        await made.close()


def asked(provider: str, count: int, topic: str = "") -> list[Request]:
    """Requests."""
    return [request(provider, n, topic) for n in range(count)]


async def run(
    ledger: Ledger, client: BatchClient, requests: Any, budget: Budget | None = None, **more: Any
) -> None:
    """Run a batch with quick polling, as a new session does."""
    ledger.close_lost_attempts()
    budget = budget or Budget(None, spent(ledger))
    await run_batch(
        ledger, budget, client, RATE, requests, **{"stage": "generate", "poll": POLL, **more}
    )


async def run_at(server: Running, provider: str, path: Path, requests: Any, **more: Any) -> None:
    """A whole session against a server."""
    with Ledger(path) as ledger:
        async with client_of(provider, server.url) as client:
            await run(ledger, client, requests, **more)


def outcomes(ledger: Ledger) -> dict[str, int]:
    """Attempts by how they ended."""
    rows = ledger.db.execute("SELECT coalesce(outcome, 'open'), count(*) FROM attempts GROUP BY 1")
    return {str(outcome): int(n) for outcome, n in rows}


async def reaches(ledger: Ledger, state: str) -> None:
    """Wait until a batch is in `state`."""
    sql = "SELECT 1 FROM batches WHERE state = ?"
    while ledger.db.execute(sql, (state,)).fetchone() is None:  # noqa: ASYNC110 (another's write)
        await asyncio.sleep(0.01)


def answered_once(server: Running, count: int) -> bool:
    """Whether the server was given each request once, and answered it."""
    counted = server.server.batches.stats
    return set(counted.items.values()) == {1} == set(counted.answered.values()) and (
        len(counted.answered) == count
    )


@both
async def test_a_batch_answers_what_single_calls_would(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """The same text under the same id and place, at half the price, and all of it on the bill."""
    server = start_fake_server(batch=batches.Options(seconds=0.2))
    requests = asked(provider, 30)
    budget, seen = Budget(None), []
    with Ledger(tmp_path / "run.db") as ledger:
        async with client_of(provider, server.url) as client:
            await run(ledger, client, requests, budget, on_progress=lambda *now: seen.append(now))
            made = teacher(provider, server.url)
            await made.start()
            for r in requests[:3]:
                single = await made(r)
                finished = ledger.finished(r.slot, 1, 0)
                assert finished is not None
                assert finished[0] == r
                assert (finished[1].text, finished[1].usage) == (single.text, single.usage)
                assert finished[1].cost == cost(RATE, single.usage) / 2
            await made.close()
        total = sum(c.cost for r in requests if (c := ledger.completion(r.id)))
        assert spent(ledger) == budget.spent == total > 0
        assert budget.reserved == 0
        lines = bill(ledger)
        assert [(b.stage, b.item, b.cost) for b in lines if b.unit == "requests"] == [
            ("generate", f"{provider}/m", total)
        ]
        assert outcomes(ledger) == {"ok": 30}
    assert seen[0] == (30, 0, 0)
    assert seen[-1] == (30, 30, 0)
    assert answered_once(server, 30)
    assert len(server.server.batches.stats.markers) == 1


@both
async def test_what_is_answered_is_not_submitted_again(
    fake_server: Running, tmp_path: Path, provider: str
) -> None:
    """A later session submits what is new; requests given twice are submitted once."""
    await run_at(fake_server, provider, tmp_path / "run.db", asked(provider, 5) * 2)
    await run_at(fake_server, provider, tmp_path / "run.db", asked(provider, 8))
    await run_at(fake_server, provider, tmp_path / "run.db", asked(provider, 8))
    assert answered_once(fake_server, 8)
    assert fake_server.server.batches.stats.created == 2


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@both
def test_a_kill_at_any_step_submits_nothing_twice(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """Killed at each step, and around each write to the ledger, a run ends as if never killed."""
    server = start_fake_server(batch=batches.Options(seconds=0.1))
    writes = [f"{when} write {n}" for n in range(1, 9) for when in ("before", "after")]
    steps = [*STEPS, *writes]
    command = [sys.executable, "-m", "tests.batch_child", provider, server.url, str(tmp_path)]
    done = subprocess.run([*command, *steps], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in told] == steps
    assert {tuple(line["codes"]) for line in told} == {(KILLED, 0)}, done.stderr
    counted = server.server.batches.stats
    assert counted.created == len(counted.markers) == len(steps) + 1  # and one to warm up
    assert answered_once(server, sum(line["items"] for line in told) + 1)
    for n, line in enumerate(told):
        with Ledger.read(tmp_path / f"{n}.db") as ledger:
            ended = outcomes(ledger)
            assert ended.pop("ok") == line["items"], line
            assert set(ended) <= {"not_sent"}, line
            completed = ledger.db.execute("SELECT count(*), sum(cost) FROM completions").fetchone()
            assert completed == (line["items"], spent(ledger)), line


@both
@pytest.mark.parametrize("creations", [("reset_after",), ("reset_before", "503", "429")])
async def test_a_creation_in_doubt_is_looked_for(
    start_fake_server: START, tmp_path: Path, provider: str, creations: tuple[str, ...]
) -> None:
    """After a broken connection nothing is created anew until it is clear that nothing was.

    The list of batches may lag behind.
    """
    options = batches.Options(creations=creations, list_lag=0.2, seconds=0.1)
    server = start_fake_server(batch=options)
    poll = Poll(first=0.02, limit=0.1, settle=0.5)
    await run_at(server, provider, tmp_path / "run.db", asked(provider, 6), poll=poll)
    assert answered_once(server, 6)
    assert server.server.batches.stats.created == 1


async def test_a_batch_that_may_be_ours_is_waited_for(
    start_fake_server: START, tmp_path: Path
) -> None:
    """Anthropic's batches prove whose they are when they end; until then nothing is sent again."""
    options = batches.Options(seconds=0.8, creations=("reset_after_next",))
    server = start_fake_server(batch=options)
    with Ledger(tmp_path / "run.db") as ledger:
        async with client_of("anthropic", server.url) as client:
            first = asyncio.create_task(run(ledger, client, asked("anthropic", 4)))
            while not server.server.batches.creations_asked:  # noqa: ASYNC110 (another's thread)
                await asyncio.sleep(0.01)
            # Somebody else's batch of the same size, in the same account, made meanwhile.
            other = tmp_path / "other.db"
            await run_at(server, "anthropic", other, asked("anthropic", 4, "else"))
            await first
        assert outcomes(ledger) == {"ok": 4}
    assert answered_once(server, 8)
    theirs, ours = server.server.batches.batches.values()
    assert ours.created - theirs.created > 0.8


@both
async def test_items_that_fail_in_passing_are_sent_again(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """In a next batch, up to three times; then they are recorded as failed."""
    options = batches.Options(errors=0.25, expired=0.15, missing=0.1)
    server = start_fake_server(batch=options)
    requests = asked(provider, 60)
    with Ledger(tmp_path / "run.db") as ledger:
        async with client_of(provider, server.url) as client:
            await run(ledger, client, requests)
        final = [c for r in requests if (c := ledger.completion(r.id))]
        assert len(final) == 60
        failed = [c for c in final if c.finish == "failed"]
        assert all(c.error for c in failed)
        rows = ledger.db.execute("SELECT request_id, count(*) FROM attempts GROUP BY 1").fetchall()
        tries = dict(rows)
        assert {tries[c.request_id] for c in failed} <= {4}
        assert max(tries.values()) == 4
        assert min(tries.values()) == 1
        # Each answer was paid for once, and what may have been billed is in the bill.
        assert set(server.server.batches.stats.answered.values()) == {1}
        maybe = ledger.db.execute(
            "SELECT coalesce(sum(reserved), 0) FROM attempts WHERE billed = 'maybe'"
        ).fetchone()[0]
        assert spent(ledger) == maybe + sum(c.cost for c in final)


@both
async def test_a_refused_item_is_recorded_once(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """What can never succeed is sent once, costs nothing, and leaves the others alone."""
    server = start_fake_server(batch=batches.Options(invalid=0.3))
    requests = asked(provider, 30)
    for _ in range(2):
        await run_at(server, provider, tmp_path / "run.db", requests)
    assert set(server.server.batches.stats.items.values()) == {1}
    with Ledger.read(tmp_path / "run.db") as ledger:
        failed = [r for r in requests if ledger.completion(r.id).finish == "failed"]  # type: ignore[union-attr]
        assert 0 < len(failed) < 30
        assert outcomes(ledger) == {"failed": len(failed), "ok": 30 - len(failed)}
        rows = ledger.db.execute("SELECT DISTINCT cost FROM attempts WHERE outcome = 'failed'")
        assert rows.fetchall() == [(0,)]


@both
async def test_when_every_item_is_refused_the_run_stops(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """Then the settings are wrong, not the requests: none of them is given up."""
    server = start_fake_server(batch=batches.Options(invalid=1.0))
    with pytest.raises(TeacherError, match="refused"):
        await run_at(server, provider, tmp_path / "run.db", asked(provider, 6))
    with Ledger.read(tmp_path / "run.db") as ledger:
        assert ledger.db.execute("SELECT count(*) FROM completions").fetchone() == (0,)
        assert outcomes(ledger) == {"bad_request": 6}
        assert spent(ledger) == 0


@both
async def test_a_batch_canceled_at_the_provider_stops_the_run(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """What was finished is recorded; the same command submits the rest."""
    server = start_fake_server(batch=batches.Options(fates=("canceled",)))
    requests = asked(provider, 30)
    with pytest.raises(TeacherError, match="canceled at the provider"):
        await run_at(server, provider, tmp_path / "run.db", requests)
    await run_at(server, provider, tmp_path / "run.db", requests)
    assert set(server.server.batches.stats.answered.values()) == {1}
    assert len(server.server.batches.stats.answered) == 30
    with Ledger.read(tmp_path / "run.db") as ledger:
        ended = outcomes(ledger)
        assert ended["ok"] == 30
        assert set(ended) == {"ok", "canceled"}


@both
async def test_an_expired_batch_is_finished_by_another(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """Expired items cost nothing and are sent again."""
    server = start_fake_server(batch=batches.Options(fates=("expired", "expired")))
    await run_at(server, provider, tmp_path / "run.db", asked(provider, 40))
    with Ledger.read(tmp_path / "run.db") as ledger:
        ended = outcomes(ledger)
        assert ended["ok"] == 40
        assert ended["expired"] > 10
        assert spent(ledger) == ledger.db.execute("SELECT sum(cost) FROM completions").fetchone()[0]


async def test_a_full_queue_is_waited_out(start_fake_server: START, tmp_path: Path) -> None:
    """A batch that the provider's queue does not take is submitted later, in smaller ones."""
    server = start_fake_server(batch=batches.Options(fates=("queue_full", "queue_full")))
    requests = asked("openai", 12)
    budget = Budget(sum(worst_case(RATE, r) for r in requests))
    await run_at(server, "openai", tmp_path / "run.db", requests, budget=budget)
    sizes = [len(batch.items) for batch in server.server.batches.batches.values()]
    assert sizes == [12, 6, 6, 6] or sizes == [12, 6, 6, 3, 3], sizes
    with Ledger.read(tmp_path / "run.db") as ledger:
        ended = outcomes(ledger)
        assert ended["ok"] == 12
        assert set(ended) == {"ok", "not_accepted"}
        assert (budget.spent, budget.reserved) == (spent(ledger), 0)


async def test_a_batch_that_fails_validation_stops_the_run(
    start_fake_server: START, tmp_path: Path
) -> None:
    """With the provider's reason; nothing is billed, and the next session tries again."""
    server = start_fake_server(batch=batches.Options(fates=("invalid",)))
    requests = asked("openai", 3)
    with pytest.raises(TeacherError, match="invalid_model"):
        await run_at(server, "openai", tmp_path / "run.db", requests)
    with Ledger.read(tmp_path / "run.db") as ledger:
        assert spent(ledger) == 0
    await run_at(server, "openai", tmp_path / "run.db", requests)
    assert set(server.server.batches.stats.answered.values()) == {1}


@both
async def test_results_that_break_off_are_read_again(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """What was recorded before the connection broke stays, and nothing is paid twice."""
    server = start_fake_server(batch=batches.Options(fates=("cut",)))
    with Ledger(tmp_path / "run.db") as ledger:
        budget = Budget(None)
        async with client_of(provider, server.url) as client:
            await run(ledger, client, asked(provider, 500), budget)
        assert outcomes(ledger) == {"ok": 500}
        total = ledger.db.execute("SELECT sum(cost) FROM completions").fetchone()[0]
        assert (budget.spent, budget.reserved) == (total, 0)
    assert answered_once(server, 500)


@both
async def test_a_stopped_session_is_taken_up(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """A batch in flight is not lost: it stays reserved, and the next session only waits for it."""
    server = start_fake_server(batch=batches.Options(seconds=0.5))
    path = tmp_path / "run.db"
    with Ledger(path) as ledger:
        budget = Budget(None)
        async with client_of(provider, server.url) as client:
            task = asyncio.create_task(run(ledger, client, asked(provider, 7), budget))
            await reaches(ledger, "submitted")
            assert open_batches(ledger) == {f"{provider}/m": 7}
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        worst = sum(-(-worst_case(RATE, r) // 2) for r in asked(provider, 7))
        assert (budget.spent, budget.reserved) == (worst, 0)
    with Ledger(path) as ledger:
        assert ledger.close_lost_attempts() == 0
        assert spent(ledger) == worst
        budget = Budget(None, worst)
        async with client_of(provider, server.url) as client:
            await run(ledger, client, [], budget)
        assert open_batches(ledger) == {}
        total = ledger.db.execute("SELECT sum(cost) FROM completions").fetchone()[0]
        assert spent(ledger) == budget.spent == total < worst
    assert answered_once(server, 7)


@both
async def test_open_batches_can_be_canceled(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """What is canceled costs nothing."""
    server = start_fake_server(batch=batches.Options(seconds=30))
    with Ledger(tmp_path / "run.db") as ledger:
        async with client_of(provider, server.url) as client:
            task = asyncio.create_task(run(ledger, client, asked(provider, 7)))
            await reaches(ledger, "submitted")
            assert await cancel_batches(ledger, client) == 1
            with pytest.raises(TeacherError, match="canceled"):
                await task
            assert spent(ledger) == 0


async def test_a_batch_the_provider_does_not_know_is_never_replaced_by_itself(
    start_fake_server: START, tmp_path: Path
) -> None:
    """Another key or account would pay twice; only who forgets the batch pays again."""
    first = start_fake_server(batch=batches.Options(seconds=60))
    path = tmp_path / "run.db"
    with Ledger(path) as ledger:
        async with client_of("openai", first.url) as client:
            task = asyncio.create_task(run(ledger, client, asked("openai", 2)))
            await reaches(ledger, "submitted")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    other = start_fake_server()
    with pytest.raises(TeacherError, match="--forget TEACHER"):
        await run_at(other, "openai", path, asked("openai", 2))
    assert other.server.batches.stats.created == 0
    with Ledger(path) as ledger:
        reserved = spent(ledger)
        assert await forget_batches(ledger, "openai/m") == 1
        assert spent(ledger) == reserved > 0
    await run_at(other, "openai", path, asked("openai", 2))
    with Ledger.read(path) as ledger:
        assert outcomes(ledger) == {"lost": 2, "ok": 2}


@both
async def test_no_server_and_no_key_are_told(
    start_fake_server: START, tmp_path: Path, provider: str
) -> None:
    """In one line, without a batch left open."""
    nowhere = "http://127.0.0.1:9"
    with Ledger(tmp_path / "run.db") as ledger:
        async with client_of(provider, nowhere) as client:
            with pytest.raises(TeacherError, match="cannot be reached"):
                await run(ledger, client, asked(provider, 2))
        async with client_of(provider, start_fake_server(key="another").url) as client:
            with pytest.raises(TeacherError, match="api_key_env"):
                await run(ledger, client, asked(provider, 2))
        assert open_batches(ledger) == {}


@both
async def test_a_raw_prompt_is_recorded_as_failed(
    fake_server: Running, tmp_path: Path, provider: str
) -> None:
    """No batch takes one; the others go on."""
    raw = Request(**{**_fields(request(provider, 0)), "messages": (), "prompt": "Once"})
    with Ledger(tmp_path / "run.db") as ledger:
        async with client_of(provider, fake_server.url) as client:
            await run(ledger, client, [raw, request(provider, 1)])
        assert ledger.completion(raw.id).finish == "failed"  # type: ignore[union-attr]
        assert ledger.completion(request(provider, 1).id).finish != "failed"  # type: ignore[union-attr]
    assert fake_server.server.batches.stats.items.total() == 1


def _fields(item: Any) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__struct_fields__}


def test_teachers_without_a_batch_api_have_no_client() -> None:
    """Also the clouds, which serve the same models in another way."""
    from selfinstruct.steps.teachers.clouds import AzureTeacher
    from selfinstruct.steps.teachers.compatible import CompatibleTeacher

    compatible = CompatibleTeacher(id="c", model="m", base_url="http://127.0.0.1/v1")
    azure = AzureTeacher.__new__(AzureTeacher)
    assert batch_client(compatible) is None
    assert batch_client(azure) is None


async def test_a_ledger_without_the_tables_opens(tmp_path: Path) -> None:
    """One that was written before there were batches gets them when it is opened."""
    with Ledger(tmp_path / "run.db") as ledger:
        ledger.journal.write_now(("DROP TABLE batches", ()), ("DROP TABLE batch_items", ()))
    with Ledger(tmp_path / "run.db") as ledger:
        assert ledger.close_lost_attempts() == 0
        assert open_batches(ledger) == {}


async def test_five_thousand_items_take_little_memory(tmp_path: Path) -> None:
    """Requests and results pass through; memory does not grow with their number."""
    peaks = []
    with server_process() as url:
        for count in (1000, 5000):
            path = tmp_path / f"{count}.db"
            with Ledger(path) as ledger:
                async with client_of("anthropic", url) as client:
                    tracemalloc.start()
                    made = (request("anthropic", n, "x" * 500) for n in range(count))
                    await run(ledger, client, made)
                    peaks.append(tracemalloc.get_traced_memory()[1])
                    tracemalloc.stop()
                assert outcomes(ledger) == {"ok": count}
        assert sum(stats(url)["batches"]["items"].values()) == 6000
    # 4,000 more requests of over a kilobyte, and as many replies, would take over 8 MB.
    assert peaks[1] - peaks[0] < 2_000_000, peaks


# -- limits and cap, on a provider without a wire -----------------------------------------------


class Desk:
    """A provider in this process: every batch is done at once, every item as `fate` says."""

    id = "openai/m"
    model = "m"

    def __init__(
        self, limits: Limits, fate: Callable[[int], str] = lambda n: "", used: int = 40
    ) -> None:
        self.limits = limits
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.billed = 0
        self._fate = fate
        self._used = used
        self._served = 0

    def line(self, request: Request, marker: str) -> bytes:
        """An item with the text of the request."""
        return json.dumps({"id": request.id, "text": request.messages[0].content}).encode() + b"\n"

    async def upload(self, file: BinaryIO, marker: str) -> str:
        """Nothing."""
        return "file"

    async def newest(self) -> str:
        """Nothing."""
        return ""

    async def create(self, file: BinaryIO, file_id: str, marker: str) -> str:
        """Keep the items."""
        size = file.seek(0, 2)
        assert size <= self.limits.bytes
        file.seek(0)
        name = f"b{len(self.batches)}"
        self.batches[name] = [json.loads(line) for line in file]
        await asyncio.sleep(0)
        return name

    async def find(self, marker: str, items: int, cursor: str, known: Collection[str]) -> Found:
        """Nothing is ever in doubt."""
        return Found("")

    async def status(self, batch_id: str) -> Status:
        """Done."""
        await asyncio.sleep(0)
        return Status(state="ended", succeeded=len(self.batches[batch_id]))

    async def results(
        self, batch_id: str, request_of: Callable[[str], Request | None]
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Answers that use up to all of their tokens, and faults."""
        for item in reversed(self.batches[batch_id]):
            fate = self._fate(self._served)
            self._served += 1
            if fate == "maybe":
                self.billed += -(-worst_case(RATE, request_of(item["id"])) // 2)  # type: ignore[arg-type]
                yield item["id"], TeacherFault("timeout", "late", billed="maybe")
            elif fate:
                yield item["id"], "expired"
            else:
                usage = Usage(input=10, output=self._used)
                self.billed += cost(RATE, usage) // 2
                yield (
                    item["id"],
                    Completion(request_id=item["id"], text="a", finish="stop", usage=usage),
                )

    async def cancel(self, batch_id: str) -> None:
        """Too late."""


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=20),
    most=st.integers(1, 12),
    size=st.integers(300, 900),
)
def test_batches_stay_within_the_limits(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], most: int, size: int
) -> None:
    """Whatever the sizes: every request is in one batch, in order, and no batch could be merged."""
    desk = Desk(Limits(requests=most, bytes=size))
    requests = [request("openai", n, "x" * length) for n, length in enumerate(lengths)]

    async def go() -> None:
        with Ledger(tmp_path_factory.mktemp("split") / "run.db") as ledger:
            await run(ledger, desk, requests)
            assert all(ledger.completion(r.id) for r in requests)

    asyncio.run(go())
    sent = [[item["id"] for item in batch] for batch in desk.batches.values()]
    assert [name for batch in sent for name in batch] == [r.id for r in requests]
    lines = {r.id: len(desk.line(r, "")) for r in requests}
    for batch, following in itertools.pairwise(sent):
        assert len(batch) <= most
        whole = sum(lines[name] for name in batch)
        assert len(batch) == most or whole + lines[following[0]] > size - 64


async def test_a_request_larger_than_any_batch_is_recorded_as_failed(tmp_path: Path) -> None:
    """The others go on."""
    desk = Desk(Limits(requests=10, bytes=400))
    requests = [request("openai", 0, "x" * 500), request("openai", 1)]
    with Ledger(tmp_path / "run.db") as ledger:
        await run(ledger, desk, requests)
        assert "more than a batch may hold" in ledger.completion(requests[0].id).error  # type: ignore[union-attr]
        assert ledger.completion(requests[1].id).text == "a"  # type: ignore[union-attr]


async def test_the_cap_splits_what_does_not_fit(tmp_path: Path) -> None:
    """Answers cost less than their worst case, so that what they leave pays for another batch."""
    desk = Desk(Limits(requests=100, bytes=10**6), used=5)
    requests = asked("openai", 12)
    worst = -(-worst_case(RATE, requests[0]) // 2)
    with Ledger(tmp_path / "run.db") as ledger:
        budget = Budget(worst * 7)
        await run(ledger, desk, requests, budget)
        assert [len(batch) for batch in desk.batches.values()] == [7, 5]
        assert budget.spent == desk.billed == spent(ledger)


async def test_the_cap_is_said_before_anything_is_submitted(tmp_path: Path) -> None:
    """Where not even one request fits, no batch begins."""
    desk = Desk(Limits(requests=100, bytes=10**6))
    worst = -(-worst_case(RATE, request("openai", 0)) // 2)
    with Ledger(tmp_path / "run.db") as ledger:
        with pytest.raises(CapReached):
            await run(ledger, desk, asked("openai", 3), Budget(worst - 1))
        assert desk.batches == {}
        assert outcomes(ledger) == {}


@settings(max_examples=40, deadline=None)
@given(
    cap=st.integers(0, 4_000_000),
    most=st.integers(1, 8),
    used=st.integers(1, 40),
    fates=st.lists(st.sampled_from(["", "", "maybe", "expired"]), max_size=20),
)
def test_the_cap_is_never_passed(
    tmp_path_factory: pytest.TempPathFactory, cap: int, most: int, used: int, fates: list[str]
) -> None:
    """Whatever batches cost and faults bill, the provider's own count stays within the cap."""
    desk = Desk(
        Limits(requests=most, bytes=10**6),
        lambda n: fates[n % len(fates)] if fates else "",
        used,
    )

    async def go() -> int:
        with Ledger(tmp_path_factory.mktemp("cap") / "run.db") as ledger:
            with contextlib.suppress(CapReached):
                await run(ledger, desk, asked("openai", 12), Budget(cap))
            return spent(ledger)

    booked = asyncio.run(go())
    assert desk.billed <= booked <= cap
    sent = Counter(item["id"] for batch in desk.batches.values() for item in batch)
    assert max(sent.values(), default=0) <= 4
