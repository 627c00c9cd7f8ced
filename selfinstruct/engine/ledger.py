"""The ledger: what was asked, what came back, what it cost and what became of it.

The rules it keeps:

- A request is recorded as sent, on the disk, before it can cost anything, and its completion before
  anything uses it. A finished call is found again by slot and never paid twice.
- Verdicts are recomputed from completions; clearing them loses nothing that cost money.
- An attempt that never ended (kill -9, power cut) is closed at the next start as possibly billed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from selfinstruct.core.errors import Billed, FolderError, LedgerError
from selfinstruct.core.types import (
    Candidate,
    Completion,
    Passage,
    Record,
    Request,
    SeedTask,
    Verdict,
)
from selfinstruct.engine.attempts import (
    attempt_done,
    attempt_failed,
    attempt_gave_up,
    attempt_sent,
    completion_in,
)
from selfinstruct.engine.journal import Journal, Statement, connect
from selfinstruct.engine.schema import TABLES, VERSION

_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(Request).decode
_decode_candidate = msgspec.json.Decoder(Candidate).decode
_decode_verdict = msgspec.json.Decoder(Verdict).decode
_decode_passage = msgspec.json.Decoder(Passage).decode
_decode_seed = msgspec.json.Decoder(SeedTask).decode
_LOST = (
    "ended IS NULL AND id NOT IN (SELECT i.attempt FROM batch_items i"
    " JOIN batches b ON b.id = i.batch WHERE b.state NOT IN ('ended', 'void'))"
)


class Ledger:
    """The ledger of one run; one writer, any number of readers.

    Args:
        path: `run.db`, made where it is not there.

    Raises `LedgerError` if the file cannot be written, `FolderError` if it is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = connect(path)
            # One transaction: each of its own would wait for the disk and fill the log.
            self._db.executescript(f"BEGIN; {TABLES} COMMIT;")
            self._check_version()
            last = self._db.execute("SELECT max(id) FROM attempts").fetchone()[0]
            answered = self._db.execute("SELECT request_id FROM completions")
            # Hashes of the ids that have a completion: a number each, and no question to the
            # database for the calls that are new, which are nearly all.
            self._answered: set[int] | None = {hash(row[0]) for row in answered}
        except sqlite3.DatabaseError as error:
            raise _refused(path, error) from None
        self._attempts = int(last or 0)
        self._journal: Journal | None = Journal(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The ledger at `path`, for reading alone, also while another process writes it.

        Raises `FolderError` if there is none.
        """
        ledger = cls.__new__(cls)
        ledger.path = path
        ledger._journal = None
        ledger._attempts = 0
        ledger._answered = None
        try:
            # Not mode=ro: a reader of a WAL database may have to make its shared-memory file.
            if not path.is_file():
                raise FolderError(f"{path}: no ledger here; nothing was generated yet")
            ledger._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            ledger._db.execute("PRAGMA query_only=ON")
            ledger._check_version()
        except sqlite3.DatabaseError as error:
            raise _refused(path, error) from None
        return ledger

    def _check_version(self) -> None:
        found = self._db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        if found is None:
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(VERSION),))
        elif int(found[0]) != VERSION:
            raise FolderError(
                f"{self.path}: written by another version of selfinstruct "
                f"(ledger schema {found[0]}, this one reads {VERSION})"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is pending and close. Raises `LedgerError` if that failed."""
        journal, self._journal = self._journal, None
        self._db.close()
        if journal is not None:
            journal.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The connection for reading; see `engine.accounts` for the questions it answers."""
        return self._db

    @property
    def journal(self) -> Journal:
        """The writer. Raises `LedgerError` where the ledger was opened for reading."""
        if self._journal is None:
            raise LedgerError(f"{self.path}: opened for reading")
        return self._journal

    # -- facts -------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A fact about the run, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Record a fact about the run."""
        self.journal.write_now(("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)))

    def seeds(self) -> list[SeedTask]:
        """The seed tasks of the run, in the order they were read."""
        rows = self._db.execute("SELECT body FROM seeds ORDER BY position")
        return [_decode_seed(row[0]) for row in rows]

    def set_seeds(self, seeds: Iterable[SeedTask]) -> None:
        """Replace the seed tasks. Earlier ones stay in the requests that showed them."""
        rows: list[Statement] = [
            ("INSERT INTO seeds VALUES (?, ?, ?)", (n, seed.id, _encode(seed)))
            for n, seed in enumerate(seeds)
        ]
        self.journal.write_now(("DELETE FROM seeds", ()), *rows)

    def passages(self) -> list[Passage]:
        """Every passage that was ever read for the run, in the order they came."""
        known = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'passages'").fetchone()
        if known is None:  # a ledger from before there were any, opened for reading
            return []
        rows = self._db.execute("SELECT body FROM passages ORDER BY rowid")
        return [_decode_passage(row[0]) for row in rows]

    def set_documents(self, passages: Iterable[Passage], in_short: str) -> None:
        """Keep the passages of a recipe's documents, beside earlier ones, and a line on them.

        One that is there already stays in its place.
        """
        self.journal.write_now(
            ("INSERT OR REPLACE INTO meta VALUES ('documents', ?)", (in_short,)),
            *(
                (
                    "INSERT INTO passages VALUES (?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET body = excluded.body"
                    " WHERE body != excluded.body",
                    (passage.id, _encode(passage)),
                )
                for passage in passages
            ),
        )

    # -- calls -------------------------------------------------------------------------------

    async def sent(self, request: Request, stage: str, reserved: int) -> int:
        """Record an attempt at `request` before it is made; returns the attempt's number.

        `reserved` is what it can cost at most, in picodollars.
        """
        number, statements = self.attempt(request, stage, reserved)
        await self.journal.write(*statements)
        return number

    def attempt(
        self, request: Request, stage: str, reserved: int
    ) -> tuple[int, tuple[Statement, Statement]]:
        """The number of a new attempt, and what records it as sent; see `sent`."""
        self._attempts += 1
        return self._attempts, attempt_sent(self._attempts, request, stage, reserved)

    async def done(self, attempt: int, completion: Completion) -> None:
        """Record the final completion of a request; on the disk when this returns."""
        self.note(completion)
        await self.journal.write(*attempt_done(attempt, completion))

    async def gave_up(self, attempt: int, completion: Completion, billed: Billed) -> None:
        """Record that a request can never succeed: a failed completion, and the attempt's bill."""
        self.note(completion)
        await self.journal.write(*attempt_gave_up(attempt, completion, billed))

    async def failed(self, attempt: int, outcome: str, billed: Billed, detail: str) -> None:
        """Record that an attempt failed. What may have been billed keeps its reservation."""
        await self.journal.write(attempt_failed(attempt, outcome, billed, detail))

    def note(self, completion: Completion) -> None:
        """Know from now on that a request is answered; whoever records a completion says so."""
        if self._answered is not None:
            self._answered.add(hash(completion.request_id))

    def finished(self, slot: int, step: int, branch: int) -> tuple[Request, Completion] | None:
        """The request of this place in the run that was answered, if there is one."""
        row = self._db.execute(
            "SELECT r.body, c.* FROM requests r JOIN completions c ON c.request_id = r.id"
            " WHERE r.slot = ? AND r.step = ? AND r.branch = ?",
            (slot, step, branch),
        ).fetchone()
        return None if row is None else (_decode_request(row[0]), completion_in(row[1:]))

    def completion(self, request_id: str) -> Completion | None:
        """The completion of a request, if it has one."""
        if self._answered is not None and hash(request_id) not in self._answered:
            return None
        row = self._db.execute(
            "SELECT * FROM completions WHERE request_id = ?", (request_id,)
        ).fetchone()
        return None if row is None else completion_in(row)

    def request(self, request_id: str) -> Request | None:
        """A request by its id."""
        row = self._db.execute("SELECT body FROM requests WHERE id = ?", (request_id,)).fetchone()
        return None if row is None else _decode_request(row[0])

    def last_slot(self) -> int:
        """The highest slot that was ever asked for, or -1."""
        row = self._db.execute("SELECT max(slot) FROM requests").fetchone()
        return -1 if row[0] is None else int(row[0])

    def close_lost_attempts(self) -> int:
        """Mark what was in flight when the last process died as possibly billed; how many.

        Items of a batch that is still open are not lost: the provider goes on with them.
        """
        lost = int(
            self._db.execute(f"SELECT count(*) FROM attempts WHERE {_LOST}").fetchone()[0]  # noqa: S608
        )
        if lost:
            self.journal.write_now(
                (
                    "UPDATE attempts SET ended = ?, outcome = 'lost', billed = 'maybe'"  # noqa: S608
                    f" WHERE {_LOST}",
                    (time.time(),),
                )
            )
        return lost

    # -- verdicts ----------------------------------------------------------------------------

    def post_verdicts(self, slot: int, records: list[Record]) -> None:
        """Record what became of a slot's candidates; recomputable, so nobody waits for it."""
        kept = sum(record.verdict.kept for record in records)
        rows: list[Statement] = [("INSERT OR REPLACE INTO slots VALUES (?, ?)", (slot, kept))]
        for record in records:
            c, v = record.candidate, record.verdict
            rows.append(
                (
                    "INSERT OR REPLACE INTO candidates VALUES (?,?,?,?,?,?,?,?)",
                    (slot, c.index, c.id, v.reason, c.cost, c.strategy, _encode(c), _encode(v)),
                )
            )
        self.journal.post(*rows)

    def forget_verdicts(self, from_slot: int = 0) -> None:
        """Clear the verdicts from `from_slot` on, to judge them again."""
        self.journal.write_now(
            ("DELETE FROM candidates WHERE slot >= ?", (from_slot,)),
            ("DELETE FROM slots WHERE slot >= ?", (from_slot,)),
        )

    def judged(self) -> int:
        """How many slots are judged; they are numbered 0 to this minus 1."""
        return int(self._db.execute("SELECT count(*) FROM slots").fetchone()[0])

    def records(self, kept: bool | None = None) -> Iterator[Record]:
        """The judged candidates in order: all, the kept ones, or the rejected ones."""
        where = {None: "", True: "WHERE reason = ''", False: "WHERE reason != ''"}[kept]
        rows = self._db.execute(
            f"SELECT candidate, verdict FROM candidates {where} ORDER BY slot, idx"  # noqa: S608
        )
        for candidate, verdict in rows:
            yield Record(candidate=_decode_candidate(candidate), verdict=_decode_verdict(verdict))

    # -- other entries -----------------------------------------------------------------------

    def expense(
        self, stage: str, item: str, quantity: float, unit: str, cost: int, detail: str = ""
    ) -> None:
        """Add a line to the bill; `cost` in picodollars."""
        self.journal.write_now(
            (
                "INSERT INTO expenses (stage, item, quantity, unit, cost, detail, at)"
                " VALUES (?,?,?,?,?,?,?)",
                (stage, item, quantity, unit, cost, detail, time.time()),
            )
        )

    def begin_session(self, stage: str) -> int:
        """Note that work on a stage begins; returns the session's number."""
        row = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM sessions").fetchone()
        number = int(row[0])
        self.journal.write_now(
            (
                "INSERT INTO sessions (id, stage, started) VALUES (?, ?, ?)",
                (number, stage, time.time()),
            )
        )
        return number

    def end_session(self, number: int, outcome: str, detail: str = "") -> None:
        """Note how a session ended."""
        self.journal.write_now(
            (
                "UPDATE sessions SET ended = ?, outcome = ?, detail = ? WHERE id = ?",
                (time.time(), outcome, detail, number),
            )
        )


def _refused(path: Path, error: sqlite3.DatabaseError) -> LedgerError | FolderError:
    """What to say of a file that cannot be opened: it is no ledger, or its disk fails."""
    if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
        return LedgerError(
            f"{path}: cannot open the ledger ({error}); make room or mend the disk, then give the "
            "same command again"
        )
    return FolderError(f"{path}: not a ledger ({error})")
