"""A process that dies at a chosen step of a batch's life, and another that goes on after it.

``python -m tests.batch_child PROVIDER URL FOLDER STEP...`` forks for each step twice: the first
child ends with ``os._exit`` at that step, as by kill -9, the second runs to the end. It prints a
line of JSON for each step: how both ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, BinaryIO

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Request, Sampling, Teacher
from selfinstruct.engine.accounts import spent
from selfinstruct.engine.batches import Poll, run_batch
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.costs.pricing import Rate
from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher
from selfinstruct.steps.teachers.batch import BatchClient, Outcome
from selfinstruct.steps.teachers.batch_client import batch_client
from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher

RATE = Rate(input=2000, output=8000, cached=1000, cache_write=2000, batch=0.5)
POLL = Poll(first=0.02, limit=0.1, settle=0.3)
KILLED = 9
# Two slices of items are recorded, the rest is not.
ITEMS = 250
STEPS = (
    "before intent",
    "writing intent",
    "after intent",
    "after upload",
    "before create",
    "after create",
    "after recording",
    "in results",
    "after results",
)


def teacher(provider: str, url: str) -> Teacher:
    """A hosted teacher on the fake server."""
    if provider == "openai":
        return OpenAITeacher(id="openai/m", model="m", base_url=f"{url}/v1")
    return AnthropicTeacher(id="anthropic/m", model="m", base_url=url)


def request(provider: str, n: int, topic: str = "") -> Request:
    """The n-th request, of a slot's second step."""
    return make_request(
        teacher=f"{provider}/m",
        model="m",
        sampling=Sampling(max_tokens=40),
        messages=(Message("user", f"What is {n} {topic}?"),),
        sample=n,
        slot=n,
        step=1,
    )


class Dying:
    """A batch client that ends the process at a step."""

    def __init__(self, client: BatchClient, step: str) -> None:
        self._client = client
        self._step = step
        self._lines = self._results = 0
        self.id, self.model, self.limits = client.id, client.model, client.limits
        self.newest, self.find, self.cancel = client.newest, client.find, client.cancel

    def _die(self, step: str) -> None:
        if step == self._step:
            os._exit(KILLED)

    def line(self, request: Request, marker: str) -> bytes:
        """An item."""
        self._die("before intent")
        self._lines += 1
        if self._lines == ITEMS - 10:
            self._die("writing intent")
        return self._client.line(request, marker)

    async def upload(self, file: BinaryIO, marker: str) -> str:
        """Hand over the file."""
        self._die("after intent")
        made = await self._client.upload(file, marker)
        self._die("after upload")
        return made

    async def create(self, file: BinaryIO, file_id: str, marker: str) -> str:
        """Create the batch."""
        self._die("before create")
        made = await self._client.create(file, file_id, marker)
        self._die("after create")
        return made

    async def status(self, batch_id: str) -> Any:
        """How far it is."""
        self._die("after recording")
        return await self._client.status(batch_id)

    async def results(
        self, batch_id: str, request_of: Callable[[str], Request | None]
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """What became of the items."""
        async for result in self._client.results(batch_id, request_of):
            self._results += 1
            if self._results == ITEMS - 10:
                self._die("in results")
            yield result
        self._die("after results")


class DyingJournal:
    """A journal that ends the process before or after its n-th write."""

    def __init__(self, journal: Any, step: str) -> None:
        self._journal = journal
        self._when, _, number = step.partition(" write ")
        self._left = int(number or 0)

    async def write(self, *statements: Any) -> None:
        """Write, or die."""
        self._left -= 1
        if self._left == 0 and self._when == "before":
            os._exit(KILLED)
        await self._journal.write(*statements)
        if self._left == 0 and self._when == "after":
            os._exit(KILLED)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


async def work(provider: str, url: str, path: Path, topic: str, step: str, items: int) -> None:
    """One session of a run, which dies at `step`."""
    made = teacher(provider, url)
    await made.start()
    client = batch_client(made)
    assert client is not None
    ledger = Ledger(path)
    ledger._journal = DyingJournal(ledger._journal, step)  # type: ignore[assignment]
    ledger.close_lost_attempts()
    await run_batch(
        ledger,
        Budget(None, spent(ledger)),
        Dying(client, step),
        RATE,
        (request(provider, n, topic) for n in range(items)),
        stage="generate",
        poll=POLL,
    )
    await made.close()
    ledger.close()


def session(*arguments: Any) -> int:
    """The exit code of a child that does `work`."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(work(*arguments))
        except BaseException as error:  # noqa: BLE001 (told to the parent by the exit code)
            sys.stderr.write(f"{arguments}: {error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(provider: str, url: str, folder: str, *steps: str) -> None:
    """Die at each step, and go on."""
    # Once without dying, so that the children find everything imported. No thread is left of it.
    asyncio.run(work(provider, url, Path(folder) / "warm.db", "warm", "", 1))
    for n, step in enumerate(steps):
        path = Path(folder) / f"{n}.db"
        items = 3 if " write " in step else ITEMS
        codes = [session(provider, url, path, step, how, items) for how in (step, "")]
        sys.stdout.write(json.dumps({"step": step, "codes": codes, "items": items}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
