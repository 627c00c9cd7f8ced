"""Group commit: one thread owns the SQLite connection and commits what has gathered.

A caller hands over statements and gets a future that resolves once they are on the disk
(``synchronous=FULL``). Statements of one call are one unit: all of them are in the file or none.
Everything that arrives within about 5 ms, or while the disk is busy, shares one commit, so that the
event loop never waits for the disk and the disk never has to keep up with single records.

Order is kept: what was handed over first is committed first or together, so a crash leaves a clean
prefix (checked with kill -9 and with a full disk in tests/test_kill.py).

A unit costs an append; the thread is woken once for a batch, not for every unit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import LedgerError

Statement = tuple[str, Sequence[Any]]
GATHER_SECONDS = 0.005
BATCH = 512
# A request is about 4 kB long and its reply 2: SQLite's own 4 kB pages would be left half empty,
# which costs a third more of the disk and of the thread's time.
PAGE_BYTES = 16_384


class _Unit:
    """Statements that stand or fall together, and whom to tell."""

    __slots__ = ("done", "statements")

    def __init__(self, statements: Sequence[Statement], done: Future[None] | _Waiter | None):
        self.statements = statements
        self.done = done


class _Waiter:
    """A future of an event loop, resolved in batches from the writer thread."""

    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()


class Journal:
    """The writer thread of a SQLite file.

    Args:
        path: the database; its schema must exist.

    Raises `LedgerError` from every call after a failed commit: nothing is written past a hole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handed: deque[_Unit] = deque()
        self._bell = threading.Event()
        self._closing = False
        self._failure: LedgerError | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    async def write(self, *statements: Statement) -> None:
        """Commit `statements`; returns when they are on the disk."""
        self._refuse_after_failure()
        waiter = _Waiter(asyncio.get_running_loop())
        self._hand_over(_Unit(statements, waiter))
        await waiter.future

    def post(self, *statements: Statement) -> None:
        """Commit `statements` in order, without waiting; a failure shows in the next call."""
        self._refuse_after_failure()
        self._hand_over(_Unit(statements, None))

    def write_now(self, *statements: Statement) -> None:
        """Like `write`, for callers without an event loop."""
        self._refuse_after_failure()
        done: Future[None] = Future()
        self._hand_over(_Unit(statements, done))
        done.result()

    def close(self) -> None:
        """Commit what is left and stop the thread. Raises `LedgerError` if that failed."""
        if self._thread.is_alive():
            self._closing = True
            self._bell.set()
            self._thread.join()
        self._refuse_after_failure()

    def _hand_over(self, unit: _Unit) -> None:
        self._handed.append(unit)
        if not self._bell.is_set():
            self._bell.set()

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise LedgerError(str(self._failure))

    def _run(self) -> None:
        try:
            connection = connect(self.path)
        except sqlite3.Error as error:
            self._fail(error, [])
            connection = None
        while True:
            units = self._gather()
            if units is None:
                break
            if connection is None or self._failure is not None:
                self._tell(units, self._failure)
                continue
            try:
                _commit(connection, units)
            except sqlite3.Error as error:
                self._fail(error, units)
            else:
                self._tell(units, None)
        if connection is not None:
            self._close_connection(connection)

    def _gather(self) -> list[_Unit] | None:
        """The next batch; None when the journal is closing and nothing is left."""
        if not self._handed:
            if self._closing:
                return None
            self._bell.wait()
        # Cleared before the batch is taken: what comes later rings again and is never missed.
        self._bell.clear()
        if not self._closing and len(self._handed) < BATCH:
            time.sleep(GATHER_SECONDS)
        return [self._handed.popleft() for _ in range(min(BATCH, len(self._handed)))]

    def _fail(self, error: sqlite3.Error, units: list[_Unit]) -> None:
        self._failure = LedgerError(
            f"{self.path}: cannot write the ledger ({error}); nothing more was spent. "
            "Make room or mend the disk, then give the same command again."
        )
        self._tell(units, self._failure)

    @staticmethod
    def _tell(units: list[_Unit], failure: LedgerError | None) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for unit in units:
            if isinstance(unit.done, _Waiter):
                by_loop.setdefault(unit.done.loop, []).append(unit.done.future)
            elif unit.done is not None:
                if failure is None:
                    unit.done.set_result(None)
                else:
                    unit.done.set_exception(failure)
        for loop, futures in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, futures, failure)

    def _close_connection(self, connection: sqlite3.Connection) -> None:
        try:
            if self._failure is None:
                # One plain file is left behind, which can be copied and read anywhere.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
        except sqlite3.Error as error:
            self._fail(error, [])


def connect(path: Path) -> sqlite3.Connection:
    """A connection set up as the ledger wants it: WAL, synchronous=FULL, explicit transactions."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new file; others keep theirs
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=30000")
    return connection


def _commit(connection: sqlite3.Connection, units: list[_Unit]) -> None:
    if not units:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for unit in units:
            for sql, values in unit.statements:
                connection.execute(sql, values)
        connection.execute("COMMIT")
    except sqlite3.Error:
        # A full disk may have rolled back by itself already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _resolve(futures: list[asyncio.Future[None]], failure: LedgerError | None) -> None:
    for future in futures:
        if future.done():  # its task was cancelled meanwhile
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
