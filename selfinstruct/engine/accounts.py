"""What the ledger adds up to: the funnel and the bill."""

from __future__ import annotations

import msgspec

from selfinstruct.engine.ledger import Ledger

BEYOND_TARGET = "beyond_target"
SCORE = "score"  # the stage whose calls rate records and bring none
_OWN = f"r.stage != '{SCORE}'"


class Funnel(msgspec.Struct, frozen=True, kw_only=True):
    """How many came in at each step and what became of them.

    ``kept + sum(rejected.values()) + beyond_target == candidates``. `refused` completions were
    declined by the teacher, `failed` ones given up after an error; both brought no candidate.
    `unjudged` completions were paid for and wait for a larger target. `lost` attempts were in
    flight when a process died. `flagged` counts kept records by flag; one may have several.
    """

    slots: int
    requests: int
    completions: int
    refused: int
    failed: int
    unjudged: int
    lost: int
    candidates: int
    kept: int
    rejected: dict[str, int]
    beyond_target: int
    flagged: dict[str, int] = {}


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the bill; `cost` in picodollars, `estimated` where it is not known for sure."""

    stage: str
    item: str
    quantity: float
    unit: str
    cost: int
    estimated: bool = False


def funnel(ledger: Ledger) -> Funnel:
    """The funnel as it stands in the ledger now."""

    def count(sql: str) -> int:
        return int(ledger.db.execute(sql).fetchone()[0])

    rows = ledger.db.execute("SELECT reason, count(*) FROM candidates GROUP BY reason").fetchall()
    reasons = {str(reason): int(n) for reason, n in rows}
    kept, beyond = reasons.pop("", 0), reasons.pop(BEYOND_TARGET, 0)
    flags = ledger.db.execute(
        "SELECT flag.value, count(*) AS n FROM candidates c,"
        " json_each(CAST(c.verdict AS TEXT), '$.flags') flag"
        " WHERE c.reason = '' GROUP BY 1 ORDER BY n DESC, 1"
    )
    ended = (
        "SELECT count(*) FROM completions c JOIN requests r ON r.id = c.request_id"  # noqa: S608
        f" WHERE {_OWN}"
    )
    ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return Funnel(
        slots=count("SELECT count(*) FROM slots"),
        requests=count(f"SELECT count(*) FROM requests r WHERE {_OWN}"),  # noqa: S608
        completions=count(ended),
        refused=count(f"{ended} AND c.finish = 'content_filter'"),
        failed=count(f"{ended} AND c.finish = 'failed'"),
        unjudged=count(
            "SELECT count(*) FROM completions c JOIN requests r ON r.id = c.request_id"
            " WHERE r.slot >= 0 AND r.slot NOT IN (SELECT slot FROM slots)"
        ),
        lost=count(f"SELECT count(*) FROM attempts r WHERE outcome = 'lost' AND {_OWN}"),  # noqa: S608
        candidates=kept + beyond + sum(ordered.values()),
        kept=kept,
        rejected=ordered,
        beyond_target=beyond,
        flagged={str(flag): int(n) for flag, n in flags},
    )


def spent(ledger: Ledger) -> int:
    """Picodollars spent on calls, possibly billed ones at their worst case included."""
    row = ledger.db.execute("SELECT coalesce(sum(cost), 0) FROM attempts WHERE billed != 'no'")
    return int(row.fetchone()[0])


def spent_at_most(ledger: Ledger) -> int:
    """Picodollars that the cap has to count: as `spent`, but where a server stated no usage and
    the tokens of a call are estimated, its worst case.
    """
    row = ledger.db.execute(
        "SELECT coalesce(sum(CASE WHEN c.estimated THEN a.reserved ELSE a.cost END), 0)"
        " FROM attempts a LEFT JOIN completions c ON c.request_id = a.request_id"
        " AND a.outcome = 'ok' WHERE a.billed != 'no'"
    )
    return int(row.fetchone()[0])


def bill(ledger: Ledger) -> list[BillLine]:
    """The bill: calls per stage and teacher, what may have been billed, and other expenses."""
    lines: list[BillLine] = []
    calls = ledger.db.execute(
        "SELECT r.stage, r.teacher, count(*), sum(c.input), sum(c.output),"
        " sum(c.cached), sum(c.cost), max(c.estimated) FROM completions c"
        " JOIN requests r ON r.id = c.request_id GROUP BY 1, 2 ORDER BY 1, 2"
    )
    for stage, item, n, tokens_in, tokens_out, cached, cost, estimated in calls:
        lines.append(BillLine(stage=stage, item=item, quantity=n, unit="requests", cost=cost))
        for unit, quantity in (
            ("tokens in", tokens_in),
            ("of them cached", cached),
            ("tokens out", tokens_out),
        ):
            if quantity:
                lines.append(
                    BillLine(stage=stage, item=item, quantity=quantity, unit=unit, cost=0,
                             estimated=bool(estimated))
                )  # fmt: skip
    maybe = ledger.db.execute(
        "SELECT stage, outcome, count(*), sum(cost) FROM attempts"
        " WHERE billed != 'no' AND outcome != 'ok' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    for stage, outcome, n, cost in maybe:
        item = f"possibly billed ({outcome})"
        lines.append(
            BillLine(stage=stage, item=item, quantity=n, unit="attempts", cost=cost, estimated=True)
        )
    expenses = ledger.db.execute(
        "SELECT stage, item, sum(quantity), unit, sum(cost) FROM expenses"
        " GROUP BY 1, 2, 4 ORDER BY min(id)"
    )
    lines.extend(
        BillLine(stage=stage, item=item, quantity=quantity, unit=unit, cost=cost)
        for stage, item, quantity, unit, cost in expenses
    )
    return lines
