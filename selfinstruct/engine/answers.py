"""Answers by batch: the answering calls of all open slots go out together, at about half the price.

A slot that wants an answer waits; when nothing else is on the wire for a moment, what waits goes
out as a batch, and the slots go on when it is answered. The sliding window is then the size of a
round: within it slots know nothing of each other, so the dataset is the same as with single calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from selfinstruct.core.errors import Interrupted, LedgerError, SelfInstructError
from selfinstruct.core.types import Completion, Request
from selfinstruct.engine.batches import OnProgress, Poll, run_batch
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.route import Route
from selfinstruct.steps.teachers.batch import BatchClient

QUIET_SECONDS = 1.0


class BatchedAnswers:
    """Collects calls of one route and makes them as batches.

    Args:
        client: the provider's batch API.
        calling: how many single calls are on the wire now, of whoever writes.
        on_progress: called with requests of the round, answered, and failed for good.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        budget: Budget,
        client: BatchClient,
        stage: str,
        calling: Callable[[], int],
        on_progress: OnProgress | None = None,
        poll: Poll | None = None,
    ) -> None:
        self._ledger = ledger
        self._budget = budget
        self._client = client
        self._stage = stage
        self._calling = calling
        self._on_progress = on_progress
        self._poll = poll
        self._waiting: dict[str, tuple[Request, asyncio.Future[Completion]]] = {}
        self._arrivals = 0
        self._round: asyncio.Task[None] | None = None
        self._stopped = False

    async def call(self, route: Route, request: Request) -> Completion:
        """The completion of `request`, from a batch; raises what `run_batch` raises."""
        known = self._ledger.completion(request.id)
        if known is not None:
            return known
        if self._stopped:
            raise Interrupted("stopped before this call was made")
        await route.start()
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = (request, future)
        self._arrivals += 1
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._rounds(route), name="batched answers")
        return await future

    def stop(self) -> None:
        """Wait no longer: a batch goes on at the provider, and the next session takes it up."""
        self._stopped = True
        if self._round is not None:
            self._round.cancel()

    async def _rounds(self, route: Route) -> None:
        """Send what waits, round after round, until nothing does."""
        try:
            while self._waiting:
                await self._settle()
                round_, self._waiting = self._waiting, {}
                await self._send(route, round_)
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            self._fail(self._waiting, Interrupted("stopped while a batch was under way"))

    async def _settle(self) -> None:
        """Wait until no single call is on the wire and no request has come for a moment."""
        seen = -1
        while seen != self._arrivals or self._calling():
            seen = self._arrivals
            await asyncio.sleep(QUIET_SECONDS)

    async def _send(
        self, route: Route, round_: dict[str, tuple[Request, asyncio.Future[Completion]]]
    ) -> None:
        try:
            await run_batch(
                self._ledger,
                self._budget,
                self._client,
                route.rate,
                [request for request, _ in round_.values()],
                stage=self._stage,
                poll=self._poll,
                on_progress=self._on_progress,
            )
        except asyncio.CancelledError:
            self._fail(round_, Interrupted("stopped while a batch was under way"))
            raise
        except SelfInstructError as error:
            self._fail(round_, error)
            return
        for request, future in round_.values():
            completion = self._ledger.completion(request.id)
            if future.done():
                continue
            if completion is None:
                future.set_exception(LedgerError(f"request {request.id}: its batch left no answer"))
            else:
                future.set_result(completion)

    @staticmethod
    def _fail(
        round_: dict[str, tuple[Request, asyncio.Future[Completion]]], error: SelfInstructError
    ) -> None:
        for _, future in round_.values():
            if not future.done():
                future.set_exception(error)
