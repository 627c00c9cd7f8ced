"""The ledger: what was asked, what came back, what it cost and what became of it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec
import pytest

from selfinstruct.core.errors import FolderError, LedgerError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import (
    Candidate,
    Completion,
    Message,
    Record,
    Request,
    Sampling,
    SeedTask,
    Usage,
    Verdict,
)
from selfinstruct.engine.accounts import bill, funnel, spent
from selfinstruct.engine.ledger import Ledger


def request(slot: int = 0, text: str = "hello", step: int = 0, branch: int = 0) -> Request:
    """A request at a place in the run."""
    return make_request(
        teacher="scripted",
        model="m",
        sampling=Sampling(max_tokens=10, schema={"type": "object"}),
        messages=(Message("user", text),),
        sample=slot,
        slot=slot,
        step=step,
        branch=branch,
        strategy="alpaca",
        parents=("seed-1",),
    )


def completion(asked: Request, text: str = "reply \ud800 \x00", cost: int = 5) -> Completion:
    """A reply with every number set."""
    return Completion(
        request_id=asked.id,
        text=text.encode("utf-8", "replace").decode(),
        finish="stop",
        usage=Usage(input=7, output=3, cached=2, cache_write=1, reasoning=1, estimated=True),
        cost=cost,
        model="m-1",
        latency_ms=1.5,
    )


def candidate(slot: int, index: int, reason: str = "") -> Record:
    """A judged candidate."""
    made = Candidate(
        id=f"{slot}-{index}",
        slot=slot,
        index=index,
        strategy="alpaca",
        instruction="Do",
        output="x",
    )
    return Record(candidate=made, verdict=Verdict(candidate_id=made.id, reason=reason))


async def test_a_finished_call_is_found_again(tmp_path: Path) -> None:
    """Request and completion come back whole, by place and by id, in a later process too."""
    asked = request(slot=3)
    answered = completion(asked)
    with Ledger(tmp_path / "run.db") as ledger:
        attempt = await ledger.sent(asked, "generate", 100)
        assert ledger.finished(3, 0, 0) is None
        await ledger.done(attempt, answered)
    with Ledger(tmp_path / "run.db") as ledger:
        assert ledger.finished(3, 0, 0) == (asked, answered)
        assert ledger.completion(asked.id) == answered
        assert ledger.request(asked.id) == asked
        assert ledger.finished(3, 1, 0) is None
        assert ledger.last_slot() == 3


async def test_the_answered_request_of_a_place_is_found(tmp_path: Path) -> None:
    """A place whose request changed before it was answered has several; the answered one counts."""
    with Ledger(tmp_path / "run.db") as ledger:
        await ledger.sent(request(slot=1, text="old"), "generate", 0)
        new = request(slot=1, text="new")
        await ledger.done(await ledger.sent(new, "generate", 0), completion(new))
        found = ledger.finished(1, 0, 0)
        assert found is not None
        assert found[0] == new


async def test_lost_attempts_are_possibly_billed(tmp_path: Path) -> None:
    """What was in flight when the process died counts at its worst case, and is named as such."""
    with Ledger(tmp_path / "run.db") as ledger:
        await ledger.sent(request(), "generate", 100)
    with Ledger(tmp_path / "run.db") as ledger:
        assert ledger.close_lost_attempts() == 1
        assert ledger.close_lost_attempts() == 0
        assert spent(ledger) == 100
        assert funnel(ledger).lost == 1
        [line] = bill(ledger)
        assert (line.item, line.cost, line.estimated) == ("possibly billed (lost)", 100, True)


async def test_the_bill_adds_up(tmp_path: Path) -> None:
    """Paid calls, attempts that may have been billed and expenses are all in it, others not."""
    with Ledger(tmp_path / "run.db") as ledger:
        for slot in range(3):
            asked = request(slot)
            await ledger.done(await ledger.sent(asked, "generate", 50), completion(asked))
        await ledger.failed(await ledger.sent(request(9), "generate", 50), "timeout", "maybe", "t")
        await ledger.failed(await ledger.sent(request(9), "generate", 50), "rate_limited", "no", "")
        gone = request(10)
        refused = Completion(request_id=gone.id, text="", finish="failed", error="bad_request: x")
        await ledger.gave_up(await ledger.sent(gone, "generate", 50), refused, "no")
        ledger.expense("train", "this machine", 0.5, "hours", 7)
        assert spent(ledger) == 3 * 5 + 50
        lines = bill(ledger)
        assert sum(line.cost for line in lines) == 3 * 5 + 50 + 7
        tokens = {line.unit: line.quantity for line in lines if line.stage == "generate"}
        assert tokens["tokens in"] == 21
        assert tokens["tokens out"] == 9
        counts = funnel(ledger)
        assert (counts.requests, counts.completions, counts.failed) == (5, 4, 1)


async def test_verdicts_are_kept_in_order_and_can_be_forgotten(tmp_path: Path) -> None:
    """Records come back in slot order; the funnel's reasons add up to the candidates."""
    with Ledger(tmp_path / "run.db") as ledger:
        ledger.post_verdicts(0, [candidate(0, 0), candidate(0, 1, "empty_output")])
        ledger.post_verdicts(1, [])
        ledger.post_verdicts(2, [candidate(2, 0), candidate(2, 1, "beyond_target")])
        ledger.set_meta("window", "4")  # waits for the queue
        assert [r.candidate.id for r in ledger.records()] == ["0-0", "0-1", "2-0", "2-1"]
        assert [r.candidate.id for r in ledger.records(kept=True)] == ["0-0", "2-0"]
        assert [r.candidate.id for r in ledger.records(kept=False)] == ["0-1", "2-1"]
        counts = funnel(ledger)
        assert counts.kept + sum(counts.rejected.values()) + counts.beyond_target == 4
        assert counts.candidates == 4
        assert ledger.judged() == 3
        ledger.forget_verdicts(from_slot=2)
        assert ledger.judged() == 2
        assert len(list(ledger.records())) == 2


async def test_flags_are_counted_also_beside_verdicts_of_older_ledgers(tmp_path: Path) -> None:
    """The funnel counts kept records by flag; a verdict written without flags has none."""
    first, second, old = (candidate(0, n) for n in range(3))
    flagged = [
        Record(candidate=first.candidate, verdict=Verdict(candidate_id="0-0", flags=("a", "b"))),
        Record(candidate=second.candidate, verdict=Verdict(candidate_id="0-1", flags=("b",))),
    ]
    with Ledger(tmp_path / "run.db") as ledger:
        ledger.post_verdicts(0, [*flagged, old])
        ledger.journal.write_now(
            (
                "UPDATE candidates SET verdict = ? WHERE id = '0-2'",
                (b'{"candidate_id":"0-2","reason":"","detail":"","neighbour":"","score":null}',),
            )
        )
        assert funnel(ledger).flagged == {"b": 2, "a": 1}
        assert [r.verdict.flags for r in ledger.records()] == [("a", "b"), ("b",), ()]


def test_seeds_are_part_of_the_ledger(tmp_path: Path) -> None:
    """Seeds are stored whole and replaced as a set."""
    seeds = [SeedTask(id=f"s{n}", instruction="I", output="O", private=True) for n in range(3)]
    with Ledger(tmp_path / "run.db") as ledger:
        ledger.set_seeds(seeds)
        ledger.set_seeds(seeds[:2])
        assert ledger.seeds() == seeds[:2]
        assert ledger.meta("nothing") is None


def test_a_reader_needs_a_ledger_and_cannot_write(tmp_path: Path) -> None:
    """Reading what is not there is a user's error; writing through a reader is refused."""
    with pytest.raises(FolderError, match="no ledger here"):
        Ledger.read(tmp_path / "run.db")
    Ledger(tmp_path / "run.db").close()
    with Ledger.read(tmp_path / "run.db") as reader, pytest.raises(LedgerError, match="reading"):
        reader.set_meta("a", "b")


def test_a_disk_that_fails_is_not_the_ledgers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader makes a small file beside the ledger, which a full disk refuses; told as such."""
    Ledger(tmp_path / "run.db").close()

    def full(*_: object, **__: object) -> object:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("selfinstruct.engine.ledger.sqlite3.connect", full)
    for work in (Ledger, Ledger.read):
        with pytest.raises(LedgerError, match=r"cannot open the ledger \(disk I/O.*make room"):
            work(tmp_path / "run.db")


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """A file of another kind, or of another version, is named and left alone."""
    path = tmp_path / "run.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(FolderError, match="not a ledger"):
        Ledger(path)
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE albums (name TEXT)")
    with pytest.raises(FolderError, match="not a ledger"):
        Ledger.read(path)
    path.unlink()
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    database.close()
    with pytest.raises(FolderError, match="another version"):
        Ledger(path)


def test_sessions_are_noted(tmp_path: Path) -> None:
    """When work began and how it ended is on record."""
    with Ledger(tmp_path / "run.db") as ledger:
        number = ledger.begin_session("generate")
        ledger.end_session(number, "done", "5 records")
        rows = ledger.db.execute("SELECT stage, outcome, detail FROM sessions").fetchall()
        assert rows == [("generate", "done", "5 records")]


def test_the_frozen_types_survive_the_ledger() -> None:
    """Whatever a model writes, the encoding gives it back."""
    made = candidate(1, 2).candidate
    hostile = msgspec.structs.replace(made, output='"\\ \x00 \u202e 🙂 </script>')
    assert msgspec.json.decode(msgspec.json.encode(hostile), type=Candidate) == hostile
