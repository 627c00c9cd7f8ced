"""What became of a batch's items: recorded on the disk, then settled with the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Completion
from selfinstruct.engine.attempts import attempt_done, attempt_failed, attempt_gave_up
from selfinstruct.engine.batch_book import CANCELED, Batch, BatchBook, Holdings, Item
from selfinstruct.engine.journal import Statement
from selfinstruct.steps.costs.pricing import Rate, cost
from selfinstruct.steps.teachers.batch import Outcome

# An item that fails in passing is sent once and then again this often.
RETRIES = 3
# A batch of so many items of which every one failed is our fault or the account's, not theirs.
BREAKER = 5


class Watched(msgspec.Struct):
    """A batch at the provider and what is known of its items.

    `own` marks a batch composed by this session. A `hopeless` one answered nothing and failed
    everything; `refused` is a fault that would meet every other item too.
    """

    batch: Batch
    own: bool
    items: int
    succeeded: int = 0
    recorded: int = 0
    canceled: int = 0
    hopeless: bool = False
    refused: TeacherFault | None = None


class Recorder:
    """Records results.

    Args:
        book: the ledger's pages on batches.
        holdings: the money set aside.
        rate: the teacher's price of single calls; batches cost `rate.batch` of it.
        asked: whether this session was asked for an item that another one submitted.
    """

    def __init__(
        self, book: BatchBook, holdings: Holdings, rate: Rate, asked: Callable[[str], bool]
    ) -> None:
        self._book = book
        self._holdings = holdings
        self._rate = rate
        self._factor = Fraction(str(rate.batch))
        self._asked = asked
        self.done = 0
        self.failed = 0
        self.again: list[str] = []
        """Requests to be sent in the next batch."""

    def price(self, amount: int) -> int:
        """The price of a call in a batch, rounded up, from that of a single call."""
        return math.ceil(amount * self._factor)

    def asked_again(self, watched: Watched, request_id: str) -> None:
        """Send a request in the next batch, if this session was asked for it."""
        if watched.own or self._asked(request_id):
            self.again.append(request_id)

    async def record(self, watched: Watched, results: list[tuple[Item, Outcome]]) -> None:
        """Record what became of items, on the disk, then settle their reservations."""
        if not results:
            return
        statements: list[Statement] = []
        reserved = spent = 0
        for item, outcome in results:
            if isinstance(outcome, Completion):
                price, told = self._answered(item, outcome)
            else:
                price, told = self._not_answered(watched, item, outcome)
            statements.extend(told)
            reserved, spent = reserved + item.reserved, spent + price
        await self._book.ledger.journal.write(*statements)
        self._holdings.settle(watched.batch, reserved, spent)
        watched.recorded += len(results)

    def _answered(self, item: Item, reply: Completion) -> tuple[int, Iterable[Statement]]:
        completion = msgspec.structs.replace(
            reply,
            # Halves of surrogate pairs fit into no file.
            text=reply.text.encode("utf-8", "replace").decode(),
            cost=self.price(cost(self._rate, reply.usage)),
        )
        self._book.ledger.note(completion)
        self.done += 1
        counted = item.reserved if reply.usage.estimated else completion.cost
        return counted, attempt_done(item.attempt, completion)

    def _not_answered(
        self, watched: Watched, item: Item, outcome: Outcome
    ) -> tuple[int, Iterable[Statement]]:
        """Book an item that brought no completion; decide whether it is sent again."""
        if outcome == "canceled":
            watched.canceled += 1
            return 0, [attempt_failed(item.attempt, CANCELED, "no", "")]
        if isinstance(outcome, TeacherFault):
            fault = outcome
        else:
            fault = TeacherFault("timeout", "expired before it was worked on")
        name = fault.kind if outcome is fault else "expired"
        price = 0 if fault.billed == "no" else item.reserved
        failed = attempt_failed(item.attempt, name, fault.billed, fault.message)
        if fault.stops_the_run or (watched.hopeless and not fault.retryable):
            watched.refused = fault
            return price, [failed]
        if fault.retryable and self._book.tries(item.request_id) < RETRIES:
            self.asked_again(watched, item.request_id)
            return price, [failed]
        error = f"{name}: {fault.message}"
        completion = Completion(request_id=item.request_id, text="", finish="failed", error=error)
        self._book.ledger.note(completion)
        self.failed += 1
        return price, attempt_gave_up(item.attempt, completion, fault.billed)
