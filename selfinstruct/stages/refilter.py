"""Refilter: a run's verdicts under other filters, from what is stored; nothing is asked for.

The judging is that of `generate`, so a run that goes on afterwards finds what it would have come to
itself. The one difference is an answer that was never bought, because earlier filters had screened
its instruction out: here it stays away, and the next `generate` judges all again and buys it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Record
from selfinstruct.engine.accounts import BEYOND_TARGET, Funnel, funnel
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.judging import Judging, Progress
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.replay import Replay
from selfinstruct.engine.scoring import session

STAGE = "refilter"
EXAMPLES = 3  # of each reason, and of newly kept records


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A record that changed sides; `reason` is why it is rejected now, or was before."""

    id: str
    instruction: str
    reason: str
    detail: str


class RefilterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What changed.

    `newly_kept` and `newly_rejected` count by reason: why it was rejected before ("" where it had
    not been looked at), and why it is now. `examples` has a few of each. `missing` is how many
    records are wanting to the target, and `not_answered` how many instructions would pass whose
    answers were never bought.
    """

    before: Funnel
    after: Funnel
    newly_kept: dict[str, int]
    newly_rejected: dict[str, int]
    examples_kept: list[Change]
    examples_rejected: list[Change]
    target: int
    missing: int
    not_answered: int
    dry_run: bool


def refilter(folder: RunFolder, recipe: Recipe, *, dry_run: bool = False) -> RefilterSummary:
    """Judge what a run has stored by the filters of `recipe`.

    Args:
        folder: a run folder, locked by the caller.
        recipe: the run's, with its filters changed; it is saved, unless `dry_run`.
        dry_run: say what would change, and change nothing.

    Raises `FolderError` if nothing was generated yet, `UserError` if `recipe` differs from the
    run's in more than its filters, `RecipeError` if a filter cannot be served.
    """
    _check_the_rest(folder.recipe(), recipe)
    recipe.need_teacher()
    with Ledger.read(folder.db_path) as ledger:
        before, was = funnel(ledger), _verdicts(ledger)
    with _workspace(folder, dry_run) as path:
        with Ledger(path) as ledger, session(ledger, STAGE):
            replay = _judge_again(recipe, ledger)
            if replay.not_answered:
                # What `generate` compares with its own settings, to judge all again.
                ledger.set_meta("verdicts", "not all answers were there")
        if not dry_run:
            folder.save_recipe(recipe)
        with Ledger.read(path) as ledger:
            return _compare(before, was, ledger, recipe.generate.target, replay, dry_run)


def _check_the_rest(old: Recipe, new: Recipe) -> None:
    plain = FiltersConfig()
    if old.model_copy(update={"filters": plain}) != new.model_copy(update={"filters": plain}):
        raise UserError("refilter changes filters.* alone; other settings are for generate")


@contextlib.contextmanager
def _workspace(folder: RunFolder, dry_run: bool) -> Iterator[Path]:
    """The ledger to work on: the run's, or a copy of it that is thrown away."""
    if not dry_run:
        yield folder.db_path
        return
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".refilter-") as place:
        copy = Path(place) / folder.db_path.name
        with (
            contextlib.closing(sqlite3.connect(folder.db_path)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        yield copy


def _judge_again(recipe: Recipe, ledger: Ledger) -> Replay:
    """Judge slot after slot, as far as slots were answered or the target wants them."""
    progress = Progress(target=recipe.generate.target)
    judging = Judging(recipe.generate, recipe.filters, ledger.seeds(), ledger, progress)
    replay = Replay(recipe.generate.strategies, ledger, judging.screen)
    wanted = progress.kept < progress.target and not judging.hopeless
    while wanted:
        candidates = replay.slot(judging.slots)
        if candidates is None:
            break
        wanted = judging.judge(judging.slots, candidates)
    return replay


def _verdicts(ledger: Ledger) -> dict[str, str]:
    """The reason of each candidate, "" for kept ones."""
    rows = ledger.db.execute("SELECT id, reason FROM candidates")
    return {str(name): str(reason) for name, reason in rows}


def _compare(
    before: Funnel,
    was: dict[str, str],
    ledger: Ledger,
    target: int,
    replay: Replay,
    dry_run: bool,
) -> RefilterSummary:
    kept, rejected = _Side(), _Side()
    seen = set()
    for record in ledger.records():
        name, now = record.candidate.id, record.verdict.reason
        then = was.get(name, BEYOND_TARGET)
        seen.add(name)
        if not now and then:
            kept.add(record, then)
        elif now and not then:
            rejected.add(record, now)
    gone = sum(1 for name, reason in was.items() if not reason and name not in seen)
    if gone:  # the target is reached before their slot comes
        rejected.counts[BEYOND_TARGET] = rejected.counts.get(BEYOND_TARGET, 0) + gone
    after = funnel(ledger)
    return RefilterSummary(
        before=before,
        after=after,
        newly_kept=kept.ordered(),
        newly_rejected=rejected.ordered(),
        examples_kept=kept.examples,
        examples_rejected=rejected.examples,
        target=target,
        missing=max(0, target - after.kept),
        not_answered=replay.not_answered,
        dry_run=dry_run,
    )


class _Side:
    """Records that came to one side: how many for each reason, and the first few."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: list[Change] = []

    def add(self, record: Record, reason: str) -> None:
        """Count a record."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if self.counts[reason] <= EXAMPLES:
            self.examples.append(
                Change(
                    id=record.candidate.id,
                    instruction=record.candidate.instruction,
                    reason=reason,
                    detail=record.verdict.detail,
                )
            )

    def ordered(self) -> dict[str, int]:
        """The counts, the largest first."""
        return dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0])))
