"""The ledger's page on scores that took time, kept by what was scored, and with what.

A score found here is never worked out again. A record is known by its text, so that one that is
judged again, or comes back in another dataset of the same ledger, keeps its scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfinstruct.core.ids import fingerprint
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.journal import Statement
from selfinstruct.engine.ledger import Ledger

WRITE_EVERY = 64  # scores; a crash may lose those since the last writing

Task = Candidate | SeedTask


def key_of(task: Task) -> str:
    """What a record's scores are kept under: a hash of its text."""
    return fingerprint([task.instruction, task.input, task.output])[:32]


class ScoreBook:
    """The scores of one kind in a ledger.

    Args:
        ledger: open for writing.
        kind: names the score and everything it depends on besides the record.
        tasks: the records that are asked about.
    """

    def __init__(self, ledger: Ledger, kind: str, tasks: Sequence[Task]) -> None:
        self._ledger = ledger
        self._kind = kind
        self._keys = [key_of(task) for task in tasks]
        rows = ledger.db.execute("SELECT item, value FROM scores WHERE kind = ?", (kind,))
        self._known: dict[str, float | None] = dict(rows.fetchall())
        self._fresh: dict[str, float | None] = {}

    def missing(self) -> list[int]:
        """Positions of the records without a score, each text once."""
        first: dict[str, int] = {}
        for at, key in enumerate(self._keys):
            if key not in self._known:
                first.setdefault(key, at)
        return list(first.values())

    def add(self, found: Iterable[tuple[int, float | None]]) -> None:
        """Note scores by position; they are on the disk after the next `flush`, or before."""
        for at, value in found:
            self._fresh[self._keys[at]] = value
        if len(self._fresh) >= WRITE_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is noted. Raises `LedgerError`."""
        rows: list[Statement] = [
            ("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", (self._kind, key, value))
            for key, value in self._fresh.items()
        ]
        if rows:
            self._ledger.journal.write_now(*rows)
        self._known |= self._fresh
        self._fresh.clear()

    def values(self) -> list[float | None]:
        """The score of each record, in order; None where it has none."""
        return [self._known.get(key) for key in self._keys]
