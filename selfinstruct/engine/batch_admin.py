"""What else can be done with the batches of a run: count them, cancel them, give them up."""

from __future__ import annotations

from functools import partial

from selfinstruct.engine.batch_book import BatchBook
from selfinstruct.engine.batch_calls import Patience, Poll
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.teachers.batch import BatchClient


def open_batches(ledger: Ledger) -> dict[str, int]:
    """Items that a provider may still be working on, by teacher id."""
    rows = ledger.db.execute(
        "SELECT b.teacher, count(*) FROM batches b JOIN batch_items i ON i.batch = b.id"
        " JOIN attempts a ON a.id = i.attempt"
        " WHERE b.state IN ('creating', 'submitted') AND a.ended IS NULL GROUP BY 1"
    )
    return {str(teacher): int(n) for teacher, n in rows}


async def cancel_batches(ledger: Ledger, client: BatchClient) -> int:
    """Ask the provider to end what is submitted; how many batches.

    What is finished by then is billed, and recorded by the next `run_batch`.
    """
    submitted = [b for b in BatchBook(ledger, client.id, "").open() if b.state == "submitted"]
    for batch in submitted:
        await Patience(client.id, Poll())(partial(client.cancel, batch.provider_id))
    return len(submitted)


async def forget_batches(ledger: Ledger, teacher: str) -> int:
    """Give up a teacher's open batches, whose items count as possibly billed; how many.

    For batches that the provider has deleted: their requests can then be made anew.
    """
    book = BatchBook(ledger, teacher, "")
    forgotten = book.open()
    for batch in forgotten:
        await book.void(batch, "lost", "maybe", "forgotten")
    return len(forgotten)
