"""What the ledger writes of an attempt at a request, and of the completion it brought."""

from __future__ import annotations

import time

import msgspec

from selfinstruct.core.errors import Billed
from selfinstruct.core.types import Completion, Request, Usage
from selfinstruct.engine.journal import Statement

_encode = msgspec.json.Encoder().encode


def attempt_sent(
    number: int, request: Request, stage: str, reserved: int
) -> tuple[Statement, Statement]:
    """What records an attempt before it is made; see `Ledger.sent`."""
    r = request
    return (
        (
            "INSERT OR IGNORE INTO requests VALUES (?,?,?,?,?,?,?,?,?,?)",
            (r.id, r.slot, r.step, r.branch, stage, r.strategy, r.teacher, r.model,
             r.prompt_version, _encode(r)),
        ),
        (
            "INSERT INTO attempts (id, request_id, stage, teacher, sent, reserved, cost)"
            " VALUES (?,?,?,?,?,?,?)",
            (number, r.id, stage, r.teacher, time.time(), reserved, reserved),
        ),
    )  # fmt: skip


def attempt_done(attempt: int, completion: Completion) -> tuple[Statement, Statement]:
    """What records the final completion of a request and ends the attempt; see `Ledger.done`."""
    return (
        _insert_completion(completion),
        (
            "UPDATE attempts SET ended = ?, outcome = 'ok', billed = 'yes', cost = ? WHERE id = ?",
            (time.time(), completion.cost, attempt),
        ),
    )


def attempt_gave_up(
    attempt: int, completion: Completion, billed: Billed
) -> tuple[Statement, Statement]:
    """What records that a request can never succeed; see `Ledger.gave_up`."""
    return (
        _insert_completion(completion),
        attempt_failed(attempt, "failed", billed, completion.error),
    )


def attempt_failed(attempt: int, outcome: str, billed: Billed, detail: str) -> Statement:
    """What records that an attempt failed; see `Ledger.failed`."""
    return (
        "UPDATE attempts SET ended = ?, outcome = ?, billed = ?, detail = ?,"
        " cost = CASE WHEN ? = 'no' THEN 0 ELSE reserved END WHERE id = ?",
        (time.time(), outcome, billed, detail, billed, attempt),
    )


def _insert_completion(completion: Completion) -> Statement:
    c, u = completion, completion.usage
    return (
        "INSERT OR REPLACE INTO completions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (c.request_id, c.text, c.finish, c.error, c.model, u.input, u.output, u.cached,
         u.cache_write, u.reasoning, int(u.estimated), c.cost, c.latency_ms),
    )  # fmt: skip


def completion_in(row: tuple[object, ...]) -> Completion:
    """The completion in a row of the table `completions`."""
    names = ("input", "output", "cached", "cache_write", "reasoning")
    counts = dict(zip(names, row[5:10], strict=True))
    return Completion(
        request_id=str(row[0]),
        text=str(row[1]),
        finish=row[2],  # type: ignore[arg-type]
        error=str(row[3]),
        model=str(row[4]),
        usage=Usage(**counts, estimated=bool(row[10])),  # type: ignore[arg-type]
        cost=row[11],  # type: ignore[arg-type]
        latency_ms=row[12],  # type: ignore[arg-type]
    )
