"""Batches: requests answered within a day at about half the price, each paid for once.

`run_batch` brings requests to the same recorded completions as calls one by one would, under the
same ids. A batch goes on at the provider whatever happens here; the next `run_batch` of the same
run takes it up where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterable, Sized

from selfinstruct.core.errors import TeacherError, TeacherFault
from selfinstruct.core.types import Request
from selfinstruct.engine.batch_book import (
    NOT_ACCEPTED,
    NOT_SENT,
    Batch,
    BatchBook,
    Holdings,
    Item,
)
from selfinstruct.engine.batch_calls import Patience, Poll
from selfinstruct.engine.batch_results import BREAKER, Recorder, Watched
from selfinstruct.engine.batch_send import SLICE, Sender, Source
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.costs.pricing import Rate, worst_case
from selfinstruct.steps.teachers.batch import BatchClient, Outcome, Status

__all__ = ["OnProgress", "Poll", "run_batch"]

# How often in a row a full queue may refuse a batch of one item.
QUEUE_TRIES = 20

OnProgress = Callable[[int, int, int], None]
"""Called with requests in all, answered, and failed for good."""


async def run_batch(
    ledger: Ledger,
    budget: Budget,
    client: BatchClient,
    rate: Rate,
    requests: Iterable[Request],
    *,
    stage: str,
    poll: Poll | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Bring every request to a recorded final completion, by batches.

    What an earlier session left open is finished first, also where `requests` is empty. To stop,
    cancel the task: the batches go on at the provider and are taken up by the next call.

    Args:
        ledger: the run's ledger.
        budget: the money cap; what the ledger counts as spent is in its `spent`.
        client: the provider's batch API; its teacher is started.
        rate: the teacher's price of single calls; batches cost `rate.batch` of it.
        requests: read one by one, so they need not all be in memory.
        stage: the name that the bill puts the calls under.
        poll: how often to ask the provider.
        on_progress: called after each change.

    Raises `CapReached` where the cap leaves no room for one more request, `TeacherError` where the
    provider refuses or a batch was canceled there, `LedgerError` when nothing can be recorded.
    """
    run = _Run(ledger, budget, client, rate, stage, poll or Poll(), on_progress)
    await run.to_the_end(requests)


class _Run:
    """One session's work on the batches of one teacher."""

    def __init__(
        self,
        ledger: Ledger,
        budget: Budget,
        client: BatchClient,
        rate: Rate,
        stage: str,
        poll: Poll,
        on_progress: OnProgress | None,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._poll = poll
        self._on_progress = on_progress
        self._waiting: set[str] = set()  # asked for, but in a batch that was open already
        self._book = BatchBook(ledger, client.id, stage)
        self._holdings = Holdings(budget)
        self._patience = Patience(client.id, poll)
        self._recorder = Recorder(self._book, self._holdings, rate, self._waiting.__contains__)
        self._sender = Sender(
            book=self._book,
            holdings=self._holdings,
            client=client,
            patience=self._patience,
            poll=poll,
            worst_case=lambda request: self._recorder.price(worst_case(rate, request)),
            wanted=self._wanted,
            room=self._one_ends,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: dict[int, Watched] = {}
        self._expected = 0
        self._accepted = self._refusals = 0
        self._queue_full = False

    async def to_the_end(self, requests: Iterable[Request]) -> None:
        """Take up what is open, send what is asked for, and again what failed in passing."""
        self._expected = len(requests) if isinstance(requests, Sized) else 0
        try:
            await self._take_up()
            source = Source(requests)
            while True:
                await self._send_all(source)
                while await self._one_ends():
                    pass
                if not self._recorder.again:
                    break
                await self._mind_the_queue()
                again, self._recorder.again = self._recorder.again, []
                self._waiting.clear()
                source = Source(r for r in map(self._ledger.request, again) if r is not None)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._holdings.leave()

    async def _take_up(self) -> None:
        """Close what was never sent; watch what was, and look for what may have been."""
        for batch in self._book.open():
            items, held = self._book.held(batch)
            self._holdings.take_up(batch, held)
            if batch.state in ("creating", "submitted"):
                self._start(batch, own=False, items=items)
            else:
                await self._close(batch, NOT_SENT, "stopped before it was submitted")

    async def _send_all(self, source: Source) -> None:
        """Compose and submit batches until nothing is left in `source`."""
        while True:
            with tempfile.TemporaryFile() as file:
                batch = await self._sender.compose(source, file)
                if batch is None:
                    return
                batch = await self._sender.submit(batch, file)
            self._start(batch, own=True, items=batch.items)
            self._tell()

    def _wanted(self, request: Request) -> bool:
        """Whether a request is neither answered nor in an open batch; counts it."""
        if self._ledger.completion(request.id) is not None:
            self._recorder.done += 1
            return False
        if self._book.is_open(request.id):
            self._waiting.add(request.id)
            return False
        return True

    # -- watching -----------------------------------------------------------------------------

    def _start(self, batch: Batch, *, own: bool, items: int) -> None:
        watched = self._watched[batch.id] = Watched(batch=batch, own=own, items=items)
        self._tasks.add(asyncio.create_task(self._watch(watched)))

    async def _one_ends(self) -> bool:
        """Wait until a batch has ended; False where none is open. Raises what its end raised."""
        if not self._tasks:
            return False
        ended, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in ended if (error := task.exception()) is not None]
        if errors:
            raise errors[0]
        return True

    async def _watch(self, watched: Watched) -> None:
        """Follow a batch to its end and record what became of its items."""
        batch = watched.batch
        if batch.state == "creating":
            provider_id = await self._sender.find(batch)
            if not provider_id:
                self._send_again(watched)
                await self._close(batch, NOT_SENT, "never reached the provider")
                return
            batch = await self._book.advance(batch, "submitted", provider_id=provider_id)
            watched.batch = batch
        status = await self._end_of(watched)
        if status.state == "rejected":
            await self._rejected(watched, status)
            return
        self._accepted += 1
        watched.hopeless = status.succeeded == 0 and status.failed >= BREAKER
        await self._collect(watched)
        await self._record_missing(watched, status)
        await self._book.advance(batch, "ended")
        self._holdings.release(batch)
        del self._watched[batch.id]
        self._raise_for(watched)

    async def _end_of(self, watched: Watched) -> Status:
        """The status of a batch that has ended; tells of its progress until then."""
        provider_id, wait = watched.batch.provider_id, self._poll.first
        while True:
            status = await self._patience(lambda: self._client.status(provider_id))
            if status.ended:
                return status
            watched.succeeded = status.succeeded
            self._tell()
            await asyncio.sleep(wait)
            wait = min(self._poll.limit, wait * 1.5)

    async def _rejected(self, watched: Watched, status: Status) -> None:
        """A batch that the provider did not accept: nothing was done, nothing is billed."""
        if status.later:
            self._send_again(watched)
            self._queue_full = True
            self._sender.most = min(self._sender.most, watched.batch.items)
        await self._close(watched.batch, NOT_ACCEPTED, status.problem)
        if not status.later:
            raise TeacherError(
                f"teacher {self._client.id}: batch {watched.batch.provider_id} was not accepted: "
                f"{status.problem}; mend that, then give the same command again"
            )

    async def _mind_the_queue(self) -> None:
        """Where the provider's queue took nothing at all, try smaller batches after a while."""
        full = self._queue_full and not self._accepted
        self._queue_full, self._accepted = False, 0
        if not full:
            self._refusals = 0
            return
        self._refusals += self._sender.most == 1
        if self._refusals > QUEUE_TRIES:
            raise TeacherError(
                f"teacher {self._client.id}: the provider's queue takes no batch of even one "
                "request; give the same command again when it has room"
            )
        self._sender.most = max(1, self._sender.most // 2)
        await asyncio.sleep(self._poll.limit)

    def _send_again(self, watched: Watched) -> None:
        """Put the items of a batch that was not accepted into the next one."""
        for item in self._book.left(watched.batch, watched.batch.items):
            self._recorder.asked_again(watched, item.request_id)

    async def _close(self, batch: Batch, outcome: str, detail: str) -> None:
        await self._book.void(batch, outcome, "no", detail)
        self._holdings.release(batch)
        self._watched.pop(batch.id, None)

    # -- results ------------------------------------------------------------------------------

    async def _collect(self, watched: Watched) -> None:
        """Record the results as they come in, in slices. A stream that breaks is begun anew."""

        async def once() -> None:
            slice_: dict[str, tuple[Item, Outcome]] = {}
            results = self._client.results(watched.batch.provider_id, self._ledger.request)
            async with contextlib.aclosing(results):
                async for request_id, outcome in results:
                    item = self._book.item(watched.batch, request_id)
                    if item is None or request_id in slice_:
                        continue  # recorded before
                    slice_[request_id] = item, outcome
                    if len(slice_) == SLICE:
                        await self._record(watched, list(slice_.values()))
                        slice_.clear()
            await self._record(watched, list(slice_.values()))

        await self._patience(once)

    async def _record_missing(self, watched: Watched, status: Status) -> None:
        """Record the items that no result came for."""
        outcome: Outcome
        if status.state in ("expired", "canceled"):
            outcome = "expired" if status.state == "expired" else "canceled"
        else:
            outcome = TeacherFault("bad_reply", "the batch brought no result", billed="maybe")
        while left := self._book.left(watched.batch, SLICE):
            await self._record(watched, [(item, outcome) for item in left])

    async def _record(self, watched: Watched, results: list[tuple[Item, Outcome]]) -> None:
        await self._recorder.record(watched, results)
        self._tell()

    def _raise_for(self, watched: Watched) -> None:
        """Raise what ends the session after everything of a batch is recorded."""
        if watched.refused is not None:
            raise self._patience.refusal(watched.refused)
        if watched.canceled:
            raise TeacherError(
                f"teacher {self._client.id}: batch {watched.batch.provider_id} was canceled at the "
                f"provider before {watched.canceled} of its requests were answered; the same "
                "command submits them again"
            )

    def _tell(self) -> None:
        if self._on_progress is None:
            return
        live = sum(max(0, w.succeeded - w.recorded) for w in self._watched.values())
        left = sum(w.items - w.recorded for w in self._watched.values())
        failed = self._recorder.failed + self._sender.given_up
        total = self._recorder.done + failed + left + len(self._recorder.again)
        self._on_progress(max(self._expected, total), self._recorder.done + live, failed)
