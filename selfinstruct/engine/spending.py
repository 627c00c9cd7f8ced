"""Where the money of a run's calls went: by strategy, and by what became of the candidates."""

from __future__ import annotations

import msgspec

from selfinstruct.engine.accounts import BEYOND_TARGET, spent
from selfinstruct.engine.ledger import Ledger


class StrategySpending(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy's calls cost, in picodollars, and what they brought.

    `cost` has everything that was asked for by the strategy: answers too, and attempts that may
    have been billed.
    """

    strategy: str
    candidates: int
    kept: int
    cost: int

    @property
    def per_kept(self) -> int | None:
        """Picodollars a kept record; None where none was kept."""
        return round(self.cost / self.kept) if self.kept else None


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """The same picodollars twice: by strategy, and by verdict.

    ``kept + sum(rejected.values()) + beyond_target + rest`` is the sum over `strategies`. `rest`
    brought no candidate, or none yet: refused and failed calls, what may have been billed, replies
    that wait for a larger target.
    """

    strategies: list[StrategySpending]
    kept: int
    rejected: dict[str, int]
    beyond_target: int
    rest: int


def spending(ledger: Ledger) -> Spending:
    """Where the money went, as the ledger has it now."""
    costs = ledger.db.execute(
        "SELECT r.strategy, sum(CASE WHEN a.billed != 'no' THEN a.cost ELSE 0 END) AS whole"
        " FROM attempts a JOIN requests r ON r.id = a.request_id GROUP BY 1 ORDER BY whole DESC, 1"
    ).fetchall()
    judged = {
        strategy: (candidates, kept)
        for strategy, candidates, kept in ledger.db.execute(
            "SELECT strategy, count(*), sum(reason = '') FROM candidates GROUP BY 1"
        )
    }
    strategies = []
    for strategy, cost in costs:
        candidates, kept = judged.get(strategy, (0, 0))
        strategies.append(
            StrategySpending(strategy=strategy, candidates=candidates, kept=kept, cost=cost)
        )
    verdicts = ledger.db.execute(
        "SELECT reason, sum(cost) AS whole FROM candidates GROUP BY 1 ORDER BY whole DESC, 1"
    )
    reasons = {str(reason): int(cost) for reason, cost in verdicts}
    rest = spent(ledger) - sum(reasons.values())
    return Spending(
        strategies=strategies,
        kept=reasons.pop("", 0),
        beyond_target=reasons.pop(BEYOND_TARGET, 0),
        rejected=reasons,
        rest=rest,
    )
