"""What the judged slots of a run took and brought, as the ledger has it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from selfinstruct.engine.accounts import spent
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.costs.forecast import Amounts, Slot, StrategyLine, strategy_line

_PER_SLOT = (
    "SELECT s.slot, s.kept, count(c.request_id), coalesce(sum(c.input), 0),"
    " coalesce(sum(c.output), 0), coalesce(sum(c.cost), 0), coalesce(sum(c.latency_ms), 0)"
    " FROM slots s LEFT JOIN requests r ON r.slot = s.slot"
    " LEFT JOIN completions c ON c.request_id = r.id GROUP BY s.slot ORDER BY s.slot"
)


def judged_slots(ledger: Ledger) -> list[Slot]:
    """The judged slots in order, with what each took."""
    return [
        Slot(
            Amounts(
                slots=1.0,
                requests=requests,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                cost=cost,
                busy_s=busy / 1000,
            ),
            kept,
        )
        for _, kept, requests, tokens_in, tokens_out, cost, busy in ledger.db.execute(_PER_SLOT)
    ]


def by_strategy(ledger: Ledger) -> list[StrategyLine]:
    """What a slot of each strategy took on average."""
    rows = ledger.db.execute(
        "SELECT s.slot, s.kept, r.strategy, count(c.request_id), sum(c.input), sum(c.output)"
        " FROM slots s JOIN requests r ON r.slot = s.slot"
        " JOIN completions c ON c.request_id = r.id GROUP BY s.slot, r.strategy"
    ).fetchall()
    grouped: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in rows:
        grouped[row[2]].append(row)
    lines = []
    for name, own in sorted(grouped.items()):
        total = Amounts(
            requests=sum(row[3] for row in own),
            tokens_in=sum(row[4] for row in own),
            tokens_out=sum(row[5] for row in own),
        )
        kept = sum(row[1] for row in own) / len(own)
        mean = total * (1 / len(own))
        lines.append(strategy_line(name, len(own) / len(rows), mean, kept))
    return lines


def taken(ledger: Ledger) -> Amounts:
    """What the run has taken so far, possibly billed attempts included."""
    row = ledger.db.execute(
        "SELECT count(*), coalesce(sum(input), 0), coalesce(sum(output), 0) FROM completions"
    ).fetchone()
    slots = int(ledger.db.execute("SELECT count(*) FROM slots").fetchone()[0])
    return Amounts(
        slots=slots, requests=row[0], tokens_in=row[1], tokens_out=row[2], cost=spent(ledger)
    )
