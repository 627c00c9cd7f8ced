"""Answers by batch: the same records as with single calls, at the batch price, through stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import selfinstruct
from selfinstruct.core.errors import Interrupted, RecipeError
from selfinstruct.engine import answers
from selfinstruct.engine.batches import Poll
from selfinstruct.engine.judging import Progress
from selfinstruct.testing import batches
from selfinstruct.testing.fake_server import Running
from tests.runs import adds_up, digest, recipe

Start = Callable[..., Running]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds start and batches are asked for at once."""
    monkeypatch.setattr(answers, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr("selfinstruct.engine.batches.Poll", lambda: Poll(first=0.05, settle=0.5))
    monkeypatch.setenv("OPENAI_API_KEY", "test")


def make(folder: Path, url: str, output: str, **generate: Any) -> selfinstruct.Run:
    """A run whose teacher is OpenAI's SDK against the fake server."""
    settings = recipe(folder, url, strategies=[{"kind": "self-instruct"}], **generate)
    settings["teacher"] |= {"kind": "openai", "model": "gpt-4o-mini"}
    settings["prices"] = {"gpt-4o-mini": {"input": 1, "output": 2, "batch": 0.5}}
    return selfinstruct.Run.from_recipe(settings, output=folder / output)


def texts(run: selfinstruct.Run) -> list[tuple[str, str, str]]:
    """The kept records' texts in order."""
    return [(r.candidate.instruction, r.candidate.input, r.candidate.output) for r in run.records()]


def test_the_same_records_for_half_the_price(tmp_path: Path, start_fake_server: Start) -> None:
    """Single calls and batches keep the same texts; answers cost half by batch."""
    single = make(tmp_path, start_fake_server().url, "single")
    single.generate()
    server = start_fake_server(batch=batches.Options(seconds=0.1))
    batched = make(tmp_path, server.url, "batched", batch_answers=True)
    batched.generate()
    assert texts(batched) == texts(single)
    assert adds_up(batched.funnel())
    assert server.server.batches.stats.created >= 1
    assert set(server.server.batches.stats.items.values()) == {1}

    costs = [{r.candidate.id: r.candidate.cost for r in run.records()} for run in (single, batched)]
    assert set(costs[0]) == set(costs[1])
    assert all(costs[1][name] < costs[0][name] for name in costs[0])


def test_a_stop_leaves_the_batch_to_the_next_session(
    tmp_path: Path, start_fake_server: Start
) -> None:
    """Stopped while a batch is under way, the same command takes it up and submits it no more."""
    server = start_fake_server(batch=batches.Options(seconds=2.0))
    run = make(tmp_path, server.url, "run", batch_answers=True)

    def on_start(progress: Progress, stop: Callable[[], None]) -> None:
        async def when_submitted() -> None:
            while server.server.batches.stats.created == 0:  # noqa: ASYNC110 (a thread's)
                await asyncio.sleep(0.02)
            stop()

        tasks.append(asyncio.get_running_loop().create_task(when_submitted()))

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(Interrupted, match="the same command continues"):
        run.generate(on_start)
    assert run.funnel().kept == 0
    [(teacher, items)] = run.open_batches().items()
    assert (teacher, items > 0) == ("openai/gpt-4o-mini", True)
    run.configure("generate.batch_answers=false")
    with pytest.raises(RecipeError, match="would be paid for twice"):
        run.generate()
    run.configure("generate.batch_answers=true")
    run.generate()
    assert run.open_batches() == {}
    assert run.funnel().kept == 40
    assert set(server.server.batches.stats.items.values()) == {1}
    whole = make(tmp_path, start_fake_server().url, "whole", batch_answers=True)
    whole.generate()
    assert digest(run) == digest(whole)


def test_a_teacher_without_batches_is_told(tmp_path: Path, fake_server: Running) -> None:
    """A server of one's own has no batch API; the message names the setting."""
    settings = recipe(tmp_path, fake_server.url, batch_answers=True)
    run = selfinstruct.Run.from_recipe(settings, output=tmp_path / "run")
    with pytest.raises(RecipeError, match="batch_answers"):
        run.generate()


def test_open_batches_can_be_cancelled_and_forgotten(
    tmp_path: Path, start_fake_server: Start
) -> None:
    """Cancelled, the provider ends them; given up, they count as possibly billed."""
    server = start_fake_server(batch=batches.Options(seconds=30.0))
    run = make(tmp_path, server.url, "run", batch_answers=True)

    def on_start(progress: Progress, stop: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(1.0, stop)

    with pytest.raises(Interrupted):
        run.generate(on_start)
    assert asyncio.run(run.acancel_batches()) == 1
    [teacher] = run.open_batches()
    assert asyncio.run(run.aforget_batches(teacher)) == 1
    assert run.open_batches() == {}
    assert any("possibly billed" in line.item for line in run.bill())
