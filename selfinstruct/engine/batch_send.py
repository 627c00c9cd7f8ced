"""From requests to batches at the provider: composed within limits and cap, submitted once.

Nothing is sent before the ledger holds the batch with all its items. When a creation's outcome is
not known, after a crash or a broken connection, the provider is searched for the batch, and nothing
is created again until it is proven to be absent.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import BinaryIO

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Completion, Request
from selfinstruct.engine.batch_book import NOT_ACCEPTED, Batch, BatchBook, Holdings
from selfinstruct.engine.batch_calls import Patience, Poll
from selfinstruct.steps.teachers.batch import BatchClient

SLICE = 200
# Bytes that a provider may count besides the items.
_MARGIN = 64


class Source:
    """Requests, one after the other, of which the last can be put back."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._rest: Iterator[Request] = iter(requests)
        self._back: Request | None = None

    def next(self) -> Request | None:
        """The next request, or None."""
        back, self._back = self._back, None
        return next(self._rest, None) if back is None else back

    def put_back(self, request: Request) -> None:
        """Give `request` again next time."""
        self._back = request


class Sender:
    """Composes and submits batches.

    Args:
        book: the ledger's pages on batches.
        holdings: the money set aside.
        client: the provider's batch API.
        patience: repeats its calls.
        poll: how long to wait for what.
        worst_case: what a request can cost at most, in picodollars.
        wanted: whether a request is to be sent at all.
        room: waits until another batch has given back money; False where there is none to wait
            for.
    """

    def __init__(
        self,
        *,
        book: BatchBook,
        holdings: Holdings,
        client: BatchClient,
        patience: Patience,
        poll: Poll,
        worst_case: Callable[[Request], int],
        wanted: Callable[[Request], bool],
        room: Callable[[], Awaitable[bool]],
    ) -> None:
        self._book = book
        self._holdings = holdings
        self._client = client
        self._patience = patience
        self._poll = poll
        self._worst_case = worst_case
        self._wanted = wanted
        self._room = room
        self.most = client.limits.requests
        self.given_up = 0

    # -- composing ----------------------------------------------------------------------------

    async def compose(self, source: Source, file: BinaryIO) -> Batch | None:
        """Record the next batch and write its items to `file`; None where nothing is left.

        Raises `CapReached` where the cap leaves no room for a single request.
        """
        marker = secrets.token_hex(12)
        batch: Batch | None = None
        count = size = 0
        fresh: dict[str, tuple[Request, int]] = {}
        while (request := source.next()) is not None:
            if request.id in fresh or not self._wanted(request):
                continue
            line = await self._line(request, marker)
            if line is None:
                continue
            worst = self._worst_case(request)
            full = count == self.most or size + len(line) > self._client.limits.bytes - _MARGIN
            if full or not await self._reserved(worst, first=count == 0):
                source.put_back(request)
                break
            batch = batch or await self._book.begin(marker)
            self._holdings.hold(batch, worst)
            file.write(line)
            fresh[request.id] = (request, worst)
            count, size = count + 1, size + len(line)
            if len(fresh) == SLICE:
                await self._book.add(batch, list(fresh.values()))
                fresh.clear()
        if batch is None:
            return None
        await self._book.add(batch, list(fresh.values()))
        return await self._book.advance(batch, "ready", items=count)

    async def _line(self, request: Request, marker: str) -> bytes | None:
        """The item of a request; None where it can never be one, which is recorded."""
        try:
            line = self._client.line(request, marker)
        except TeacherFault as fault:
            error = f"{fault.kind}: {fault.message}"
        else:
            if len(line) <= self._client.limits.bytes - _MARGIN:
                return line
            error = f"bad_request: {len(line)} bytes are more than a batch may hold"
        ledger = self._book.ledger
        number = await ledger.sent(request, self._book.stage, 0)
        failed = Completion(request_id=request.id, text="", finish="failed", error=error)
        await ledger.gave_up(number, failed, "no")
        self.given_up += 1
        return None

    async def _reserved(self, amount: int, *, first: bool) -> bool:
        """Reserve `amount`; False where a batch that has items is better sent without it."""
        while not self._holdings.fits(amount):
            if await self._room():
                continue
            if not first:
                return False
            break
        await self._holdings.reserve(amount)
        return True

    # -- submitting ---------------------------------------------------------------------------

    async def submit(self, batch: Batch, file: BinaryIO) -> Batch:
        """Hand a composed batch over. Raises `TeacherError` where the provider refuses it."""
        client = self._client
        file_id = await self._patience(lambda: client.upload(file, batch.marker))
        batch = await self._book.advance(batch, "uploaded", file_id=file_id)
        cursor = await self._patience(client.newest)
        tries = 0
        while True:
            # Written before each creation: whoever finds this row must look before creating.
            batch = await self._book.advance(batch, "creating", cursor=cursor, changed=time.time())
            try:
                provider_id = await client.create(file, file_id, batch.marker)
            except TeacherFault as fault:
                found = "" if _certainly_not(fault) else await self.find(batch)
                if not found:
                    tries += 1
                    await self._wait_or_void(batch, fault, tries)
                    continue
                provider_id = found
            return await self._book.advance(batch, "submitted", provider_id=provider_id)

    async def _wait_or_void(self, batch: Batch, fault: TeacherFault, tries: int) -> None:
        """Wait before the next creation; close the batch where the provider refuses it."""
        if not fault.retryable:
            await self._book.void(batch, NOT_ACCEPTED, "no", fault.message)
            self._holdings.release(batch)
        await self._patience.wait_out(fault, tries)

    async def find(self, batch: Batch) -> str:
        """The provider's id of a batch that may have been created, "" where it was not.

        It was not when the provider's list, some time after the creation, holds neither the batch
        nor one that may yet turn out to be it.
        """
        age = max(0.0, time.time() - batch.changed)
        proven = time.monotonic() + max(0.0, self._poll.settle - age)
        wait = self._poll.first
        while True:
            late = time.monotonic() >= proven
            found = await self._patience(
                lambda: self._client.find(
                    batch.marker, batch.items, batch.cursor, self._book.provider_ids()
                )
            )
            if found.id or (late and not found.undecided):
                return found.id
            await asyncio.sleep(wait)
            wait = min(self._poll.limit, wait * 1.5)


def _certainly_not(fault: TeacherFault) -> bool:
    """Whether a creation that failed created nothing: never connected, or refused with a 4xx."""
    if fault.kind == "connection":
        return fault.billed == "no"
    return fault.status is not None and 400 <= fault.status < 500 and fault.status not in (408, 409)
