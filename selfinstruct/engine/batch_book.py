"""The ledger's pages on batches, and the money set aside for them.

A batch's state is written before the step it names, so whatever a crash leaves behind says how far
the step before it came:

    writing, ready, uploaded   no batch was created: the items are free again
    creating                   the provider may have it: look for it before anything else
    submitted                  the provider has it under `provider_id`
    ended                      all its results are recorded
    void                       there is no such batch
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from selfinstruct.core.errors import Billed
from selfinstruct.core.types import Request
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.journal import Statement
from selfinstruct.engine.ledger import Ledger

State = Literal["writing", "ready", "uploaded", "creating", "submitted", "ended", "void"]
_OPEN = "state NOT IN ('ended', 'void')"
# How an attempt ends that says nothing of its request: it is not counted as a try.
NOT_SENT, NOT_ACCEPTED, CANCELED = "not_sent", "not_accepted", "canceled"


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table `batches`; see `engine.schema`."""

    id: int
    marker: str
    teacher: str
    stage: str
    state: State
    items: int = 0
    file_id: str = ""
    cursor: str = ""
    provider_id: str = ""
    changed: float = 0.0


class Item(msgspec.Struct, frozen=True):
    """An item of a batch that has not ended: its attempt, and what is reserved for it."""

    request_id: str
    attempt: int
    reserved: int


class BatchBook:
    """The batches of one teacher in a run's ledger.

    Args:
        ledger: the run's ledger, open for writing.
        teacher: the teacher's id.
        stage: the name that the bill puts new batches under.
    """

    def __init__(self, ledger: Ledger, teacher: str, stage: str) -> None:
        self.ledger = ledger
        self._teacher = teacher
        self.stage = stage

    # -- what is known ------------------------------------------------------------------------

    def open(self) -> list[Batch]:
        """The batches that are neither ended nor void, oldest first."""
        rows = self.ledger.db.execute(
            "SELECT id, marker, teacher, stage, state, items, file_id, cursor, provider_id, changed"  # noqa: S608
            f" FROM batches WHERE teacher = ? AND {_OPEN} ORDER BY id",
            (self._teacher,),
        )
        names = Batch.__struct_fields__
        return [Batch(**dict(zip(names, row, strict=True))) for row in rows]

    def provider_ids(self) -> frozenset[str]:
        """The provider's ids of every batch of this run."""
        rows = self.ledger.db.execute("SELECT provider_id FROM batches WHERE provider_id != ''")
        return frozenset(row[0] for row in rows)

    def is_open(self, request_id: str) -> bool:
        """Whether a request lies in a batch that is open."""
        row = self.ledger.db.execute(
            "SELECT 1 FROM batch_items i JOIN batches b ON b.id = i.batch"  # noqa: S608
            f" WHERE i.request_id = ? AND b.{_OPEN}",
            (request_id,),
        ).fetchone()
        return row is not None

    def tries(self, request_id: str) -> int:
        """How often a request was tried in a batch and failed."""
        row = self.ledger.db.execute(
            "SELECT count(*) FROM batch_items i JOIN attempts a ON a.id = i.attempt"
            " WHERE i.request_id = ? AND a.ended IS NOT NULL AND a.outcome NOT IN (?, ?, ?)",
            (request_id, NOT_SENT, NOT_ACCEPTED, CANCELED),
        ).fetchone()
        return int(row[0])

    def item(self, batch: Batch, request_id: str) -> Item | None:
        """An item of a batch; None where it has ended, or is none of the batch's."""
        row = self.ledger.db.execute(
            "SELECT a.id, a.reserved FROM batch_items i JOIN attempts a ON a.id = i.attempt"
            " WHERE i.batch = ? AND i.request_id = ? AND a.ended IS NULL",
            (batch.id, request_id),
        ).fetchone()
        return None if row is None else Item(request_id, *row)

    def left(self, batch: Batch, most: int) -> list[Item]:
        """Items of a batch that have not ended, `most` of them."""
        rows = self.ledger.db.execute(
            "SELECT i.request_id, a.id, a.reserved FROM batch_items i"
            " JOIN attempts a ON a.id = i.attempt"
            " WHERE i.batch = ? AND a.ended IS NULL LIMIT ?",
            (batch.id, most),
        )
        return [Item(*row) for row in rows]

    def held(self, batch: Batch) -> tuple[int, int]:
        """Items of a batch that have not ended, and the picodollars reserved for them."""
        row = self.ledger.db.execute(
            "SELECT count(*), coalesce(sum(a.reserved), 0) FROM batch_items i"
            " JOIN attempts a ON a.id = i.attempt WHERE i.batch = ? AND a.ended IS NULL",
            (batch.id,),
        ).fetchone()
        return int(row[0]), int(row[1])

    # -- what is written ----------------------------------------------------------------------

    async def begin(self, marker: str) -> Batch:
        """A new batch without items."""
        last = self.ledger.db.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()[0]
        batch = Batch(
            id=int(last) + 1,
            marker=marker,
            teacher=self._teacher,
            stage=self.stage,
            state="writing",
            changed=time.time(),
        )
        await self.ledger.journal.write(
            (
                "INSERT INTO batches (id, marker, teacher, stage, state, changed)"
                " VALUES (?,?,?,?,?,?)",
                (batch.id, marker, batch.teacher, batch.stage, batch.state, batch.changed),
            )
        )
        return batch

    async def add(self, batch: Batch, items: Sequence[tuple[Request, int]]) -> None:
        """Put requests with what is reserved for each into a batch, as attempts that are sent."""
        statements: list[Statement] = []
        for request, reserved in items:
            number, sent = self.ledger.attempt(request, batch.stage, reserved)
            statements.extend(sent)
            statements.append(
                ("INSERT INTO batch_items VALUES (?,?,?)", (batch.id, request.id, number))
            )
        await self.ledger.journal.write(*statements)

    async def advance(self, batch: Batch, state: State, **changes: str | int | float) -> Batch:
        """Write a batch's next state and other columns; on the disk when this returns."""
        after = msgspec.structs.replace(batch, state=state, **changes)
        await self.ledger.journal.write(
            (
                "UPDATE batches SET state = ?, items = ?, file_id = ?, cursor = ?,"
                " provider_id = ?, changed = ? WHERE id = ?",
                (after.state, after.items, after.file_id, after.cursor, after.provider_id,
                 after.changed, after.id),
            )
        )  # fmt: skip
        return after

    async def void(self, batch: Batch, outcome: str, billed: Billed, detail: str) -> None:
        """Close a batch that never was, or is given up, with every attempt in it."""
        await self.ledger.journal.write(
            (
                "UPDATE attempts SET ended = ?, outcome = ?, billed = ?, detail = ?,"
                " cost = CASE WHEN ? = 'no' THEN 0 ELSE reserved END WHERE ended IS NULL"
                " AND id IN (SELECT attempt FROM batch_items WHERE batch = ?)",
                (time.time(), outcome, billed, detail, billed, batch.id),
            ),
            ("UPDATE batches SET state = 'void', detail = ? WHERE id = ?", (detail, batch.id)),
        )


class Holdings:
    """What is reserved of the budget for each batch, in picodollars.

    An attempt that has not ended counts as spent in the ledger, hence also in the budget that a
    session begins with; a batch that is taken up again moves that back into its reservation.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held: dict[int, int] = {}
        self._nameless = 0

    def fits(self, amount: int) -> bool:
        """Whether `amount` can be reserved now."""
        budget = self._budget
        return budget.cap is None or budget.spent + budget.reserved + amount <= budget.cap

    async def reserve(self, amount: int) -> None:
        """Reserve `amount`, for `hold` to put a batch's name to. Raises `CapReached`."""
        await self._budget.reserve(amount)
        self._nameless += amount

    def hold(self, batch: Batch, amount: int) -> None:
        """Count a reservation as a batch's."""
        self._nameless -= amount
        self._held[batch.id] = self._held.get(batch.id, 0) + amount

    def take_up(self, batch: Batch, amount: int) -> None:
        """Reserve again what an earlier session reserved and booked as spent."""
        self._budget.settle(-amount, -amount)
        self._held[batch.id] = amount

    def settle(self, batch: Batch, reserved: int, cost: int) -> None:
        """Replace a part of a batch's reservation by what it cost."""
        self._held[batch.id] -= reserved
        self._budget.settle(reserved, cost)

    def release(self, batch: Batch) -> None:
        """Give back all that is still reserved for a batch: it costs nothing more."""
        self._budget.settle(self._held.pop(batch.id, 0), 0)

    def leave(self) -> None:
        """Book as spent what is still reserved: those batches go on without us."""
        for amount in self._held.values():
            self._budget.settle(amount, amount)
        self._held.clear()
        self._budget.settle(self._nameless, 0)
        self._nameless = 0
