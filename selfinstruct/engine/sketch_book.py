"""The ledger's page on sketches: MinHash bands of long texts, and embeddings, by what made them.

A run that continues adds its kept records to the filters again. Splitting and listing a text takes
microseconds, a signature of a long one or an embedding milliseconds, so those are kept. They follow
from the text alone: one that is missing is made again, and what is decided by them is the same with
or without them.
"""

from __future__ import annotations

from selfinstruct.engine.ledger import Ledger


class SketchBook:
    """What `jaccard_index.Bander` keeps its bands in, and `embedding.kept.Kept` its vectors."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def get(self, key: bytes) -> bytes | None:
        """The sketch of `key`, or None."""
        row = self._ledger.db.execute("SELECT bands FROM sketches WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, key: bytes, bands: bytes) -> None:
        """Keep a sketch; nobody waits for it."""
        self._ledger.journal.post(("INSERT OR IGNORE INTO sketches VALUES (?, ?)", (key, bands)))
