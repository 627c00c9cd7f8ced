"""What the fake server's batches are, and how each provider describes them and their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from selfinstruct.testing import bodies, faults

CHAT = "/v1/chat/completions"
_DAY = timedelta(hours=24)
Write = Callable[[bodies.Protocol, dict[str, Any], str], bodies.Written]
"""The reply to a body of a protocol, with the body's hash."""
# What may become of the creation of a batch; see `Options.creations`.
CREATIONS = frozenset({"ok", "429", "503", "reset_before", "reset_after", "reset_after_next"})
# What may become of a batch as a whole; see `Options.fates`.
FATES = frozenset({"ok", "canceled", "expired", "queue_full", "invalid", "cut"})


@dataclass(frozen=True)
class Options:
    """How batches are dealt with."""

    seconds: float = 0.0
    """Time from a batch's creation to its end."""
    errors: float = 0.0
    """Share of the items that fail at the provider's; drawn anew for each batch."""
    invalid: float = 0.0
    """Share of the requests that are refused, however often they are sent."""
    expired: float = 0.0
    """Share of the items that expire; drawn anew for each batch."""
    missing: float = 0.0
    """Share of the items that no result comes for; drawn anew for each batch."""
    list_lag: float = 0.0
    """Seconds until a new batch is in the list."""
    creations: tuple[str, ...] = ()
    """What becomes of the first creations: one of `CREATIONS`. "reset_after" breaks the connection
    when the batch is made, "reset_before" instead of making it, "reset_after_next" likewise once
    the next one that is asked for was made."""
    fates: tuple[str, ...] = ()
    """What becomes of the first batches as a whole: one of `FATES`. "cut" breaks off the first
    download of its results."""

    def __post_init__(self) -> None:
        for name in (*self.creations, *self.fates):
            if name not in CREATIONS | FATES:
                raise ValueError(f"no fate of a batch is called {name!r}")


@dataclass
class Stats:
    """What was submitted, since the start."""

    created: int = 0
    markers: Counter[str] = field(default_factory=Counter)
    """Batches created, by the marker that they or their items carry."""
    items: Counter[str] = field(default_factory=Counter)
    """How often a request was submitted, by the hash of its body."""
    answered: Counter[str] = field(default_factory=Counter)
    """How often a request was answered, by the hash of its body."""
    tokens_in: int = 0
    tokens_out: int = 0


class Item(NamedTuple):
    """One request of a batch."""

    custom_id: str
    body: dict[str, Any]
    digest: str


@dataclass
class Batch:
    """A batch; `outcomes` is made when it ends, by the places of its items."""

    id: str
    protocol: bodies.Protocol
    items: list[Item]
    fate: str
    created: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    input_file: str = ""
    canceled: bool = False
    downloads: int = 0
    outcomes: list[str] | None = None


def line(batch: Batch, item: Item, outcome: str, write: Write) -> dict[str, Any]:
    """A line of a batch's results."""
    message = f"the fake server says {outcome}"
    if outcome == "succeeded":
        written = write(batch.protocol, item.body, item.digest)
        model = str(item.body.get("model", ""))
        reply = bodies.reply(batch.protocol, model, item.digest, written)
        if batch.protocol == "messages":
            return _message_line(item, {"type": "succeeded", "message": reply})
        return _chat_line(item, 200, reply)
    refusal = faults.REFUSALS["500" if outcome == "errored" else "400"]
    error = orjson.loads(bodies.error(batch.protocol, refusal.code, refusal.kind, message))
    if batch.protocol == "messages":
        known = outcome in ("expired", "canceled")
        result = {"type": outcome} if known else {"type": "errored", "error": error}
        return _message_line(item, result)
    code = {"expired": "batch_expired", "canceled": "batch_cancelled"}.get(outcome)
    if code is None:
        return _chat_line(item, refusal.status, error)
    return _chat_line(item, 0, None) | {"error": {"code": code, "message": message}}


def with_ends(listed: dict[str, Any], page: list[dict[str, Any]]) -> dict[str, Any]:
    """A list's reply with the first and last id of its page."""
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
    return {**listed, "first_id": None, "last_id": None, **ends}


def _chat_line(item: Item, status: int, body: Any) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "req_fake", "body": body} if status else None
    return {
        "id": f"batch_req_{item.digest}",
        "custom_id": item.custom_id,
        "response": response,
        "error": None,
    }


def _message_line(item: Item, result: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": item.custom_id, "result": result}


def chat_batch(batch: Batch, ended: bool, counts: Counter[str]) -> dict[str, Any]:
    """A batch as OpenAI describes it."""
    status, errors = "in_progress", None
    if ended:
        expired = counts["expired"] > 0
        status = "cancelled" if counts["canceled"] else "expired" if expired else "completed"
    if counts["rejected"]:
        status = "failed"
        code = "token_limit_exceeded" if batch.fate == "queue_full" else "invalid_model"
        said = {"code": code, "message": f"the fake server says {code}", "line": None}
        errors = {"object": "list", "data": [said]}
    good = counts["succeeded"]
    bad = counts.total() - good - counts["missing"]
    has_results = ended and status != "failed"
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": CHAT,
        "completion_window": "24h",
        "created_at": int(batch.created),
        "input_file_id": batch.input_file,
        "status": status,
        "errors": errors,
        "metadata": dict(batch.metadata) or None,
        "output_file_id": f"output-{batch.id}" if good and has_results else None,
        "error_file_id": f"error-{batch.id}" if bad and has_results else None,
        "request_counts": {"total": len(batch.items), "completed": good, "failed": bad},
    }


def message_batch(batch: Batch, ended: bool, counts: Counter[str], base: str) -> dict[str, Any]:
    """A batch as Anthropic describes it."""
    created = datetime.fromtimestamp(batch.created, UTC)
    errored = counts["errored"] + counts["invalid"] + counts["rejected"]
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": {
            "processing": 0 if ended else len(batch.items),
            "succeeded": counts["succeeded"] + counts["missing"],
            "errored": errored,
            "canceled": counts["canceled"],
            "expired": counts["expired"],
        },
        "created_at": created.isoformat(),
        "expires_at": (created + _DAY).isoformat(),
        "ended_at": datetime.now(UTC).isoformat() if ended else None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"{base}/v1/messages/batches/{batch.id}/results" if ended else None,
    }
