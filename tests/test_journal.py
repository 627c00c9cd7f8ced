"""Group commit: durable when told so, in order, whole units, and never past a failure."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selfinstruct.core.errors import LedgerError
from selfinstruct.engine import journal as journal_module
from selfinstruct.engine.journal import Journal, connect


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one table."""
    path = tmp_path / "j.db"
    connection = connect(path)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x TEXT)")
    connection.close()
    return path


def rows(path: Path) -> list[tuple[int, str]]:
    """What another connection sees."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT n, x FROM t ORDER BY n").fetchall()
    finally:
        connection.close()


async def test_written_means_on_the_disk(database: Path) -> None:
    """When `write` returns, every other connection sees the rows."""
    journal = Journal(database)
    await journal.write(
        ("INSERT INTO t VALUES (1, 'a')", ()), ("INSERT INTO t VALUES (2, 'b')", ())
    )
    assert rows(database) == [(1, "a"), (2, "b")]
    journal.post(("INSERT INTO t VALUES (3, 'c')", ()))
    journal.write_now(("INSERT INTO t VALUES (?, ?)", (4, "d")))
    assert len(rows(database)) == 4
    journal.close()


async def test_many_writers_share_commits(database: Path) -> None:
    """Two hundred concurrent writes all arrive, in the order they were given."""
    journal = Journal(database)
    await asyncio.gather(
        *(journal.write(("INSERT INTO t VALUES (?, ?)", (n, str(n)))) for n in range(200))
    )
    assert [n for n, _ in rows(database)] == list(range(200))
    journal.close()


async def test_a_slow_disk_does_not_hold_up_the_event_loop(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit takes long, the loop goes on; what comes meanwhile shares the next one."""
    commits: list[int] = []
    commit = journal_module._commit
    written = threading.Event()

    def slow(connection: sqlite3.Connection, units: list[journal_module._Unit]) -> None:
        commits.append(len(units))
        written.wait(60)
        commit(connection, units)

    monkeypatch.setattr(journal_module, "_commit", slow)
    journal = Journal(database)
    writes = []
    turns = 0
    for n in range(40):
        writes.append(asyncio.create_task(journal.write((f"INSERT INTO t VALUES ({n}, '')", ()))))
        await asyncio.sleep(0.005)
        turns += not writes[0].done()
    assert turns == 40  # none of them waited for the first commit
    written.set()
    await asyncio.gather(*writes)
    assert len(commits) < 5
    assert sum(commits) == len(rows(database)) == 40
    journal.close()


async def test_nothing_is_written_past_a_failure(database: Path) -> None:
    """A failed unit fails everybody in its commit and all who come after; earlier rows stay."""
    journal = Journal(database)
    await journal.write(("INSERT INTO t VALUES (1, 'a')", ()))
    with pytest.raises(LedgerError, match="cannot write the ledger"):
        await journal.write(("INSERT INTO t VALUES (1, 'again')", ()))
    with pytest.raises(LedgerError):
        await journal.write(("INSERT INTO t VALUES (2, 'b')", ()))
    with pytest.raises(LedgerError):
        journal.close()
    assert rows(database) == [(1, "a")]


KILLED = """
import asyncio, os, sys
from pathlib import Path
from selfinstruct.engine.journal import Journal

async def main():
    journal = Journal(Path(sys.argv[1]))
    for n in range(100000):
        await journal.write(("INSERT INTO t VALUES (?, 'x')", (n,)))
        print(n, flush=True)

asyncio.run(main())
"""


def test_kill_9_keeps_what_was_acknowledged(database: Path) -> None:
    """After kill -9 every row that was reported as written is there, with no gap before it."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(database)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(20)][-1]
        child.kill()
    stored = [n for n, _ in rows(database)]
    assert stored == list(range(len(stored)))
    assert len(stored) > acknowledged


FULL = """
import asyncio, sys
from pathlib import Path
from selfinstruct.core.errors import LedgerError
from selfinstruct.engine.journal import Journal

async def main():
    journal = Journal(Path(sys.argv[1]))
    done = 0
    try:
        for n in range(10000):
            await journal.write(("INSERT INTO t VALUES (?, ?)", (n, "x" * 20000)))
            done = n + 1
    except LedgerError as error:
        print(done, error, flush=True)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_loses_nothing_acknowledged(database: Path) -> None:
    """When the disk refuses more, the writer says so and stops; earlier rows are whole."""
    limited = ["sh", "-c", f'ulimit -f 2000; exec {sys.executable} -c "$0" {database}', FULL]
    if shutil.which("sh") is None:
        pytest.fail("a POSIX shell is needed")
    output = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert "cannot write the ledger" in output.stdout, output
    done = int(output.stdout.split()[0])
    stored = [n for n, _ in rows(database)]
    assert stored[:done] == list(range(done))
    assert len(stored) - done <= 1
