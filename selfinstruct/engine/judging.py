"""What a run has judged: verdicts in slot order, and everything that follows from them.

The pool that later slots draw from, the counts, the course and the reasons to stop are functions of
the judged slots, so they are rebuilt from the ledger when a run goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from selfinstruct.core.ids import fingerprint
from selfinstruct.core.money import from_dollars
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.sections.generate import GenerateConfig
from selfinstruct.core.types import Candidate, Passage, Record, SeedTask, Verdict
from selfinstruct.engine.accounts import BEYOND_TARGET
from selfinstruct.engine.dispatch import Counters
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.sketch_book import SketchBook
from selfinstruct.engine.steering import Course, MarginalPrice, SlotYield, Steering
from selfinstruct.steps.filters.judge import Judge, build_filters, rule_files
from selfinstruct.steps.strategies.shapes import Pool, PoolView

# What may change verdicts besides the recipe and the seeds: filters' or parsers' own code.
JUDGE_VERSION = 3
# How many slots a guess of their yield counts as, in foreseeing how many more are needed.
GUESS_WEIGHT = 8


class Progress(msgspec.Struct):
    """The run as it stands, changed in place; what a live panel shows.

    `cost` is in picodollars; `batch` is the requests of the batch under way, those answered and
    those that failed.
    """

    target: int = 0
    kept: int = 0
    judged: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    beyond_target: int = 0
    cost: int = 0
    began: float = 0.0
    kept_before: int = 0
    lost: int = 0
    calls: Counters = msgspec.field(default_factory=Counters)
    batch: tuple[int, int, int] | None = None
    stopping: bool = False


class Judging:
    """The judged slots of a run.

    Args:
        config, filters: the recipe's sections.
        seeds: the run's seed tasks.
        ledger: where verdicts are kept; those of other settings are cleared and made anew. Its
            passages are what answers are held against.
        progress: counted up as slots are judged.
        passages: to draw from, in an order that follows from the run's `seed`.
    """

    def __init__(
        self,
        config: GenerateConfig,
        filters: FiltersConfig,
        seeds: list[SeedTask],
        ledger: Ledger,
        progress: Progress,
        passages: Sequence[Passage] = (),
        seed: int = 0,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._pool = Pool(seeds, passages, seed)
        self._judge = Judge(build_filters(filters, SketchBook(ledger), ledger.passages()))
        self._kept_after: list[int] = []  # records kept up to and including slot i
        self._steering = Steering(
            [strategy.kind for strategy in config.strategies], [seed.id for seed in seeds]
        )
        dearest = config.max_cost_per_record
        self.marginal = MarginalPrice(None if dearest is None else from_dollars(dearest))
        self.barren = 0  # slots in a row that kept nothing
        self.screen = self._judge.screen
        self.progress = progress
        self._restore(filters, seeds)

    @property
    def slots(self) -> int:
        """Slots judged so far; also the first one that is not."""
        return len(self._kept_after)

    @property
    def hopeless(self) -> bool:
        """Whether going on would only burn money."""
        return self.barren >= self._config.give_up_after or self.marginal.too_dear

    def sight(self, slot: int, width: int) -> tuple[PoolView, Course]:
        """What a slot may know under a window of `width`: its view of the pool, and its course."""
        judged = max(0, slot - width + 1)
        course = self._steering.course(judged if self._config.adapt else 0)
        seen = self._kept_after[judged - 1] if judged else 0
        return self._pool.view(seen, course.machine, course.seeds, slot), course

    def judge(self, slot: int, candidates: list[Candidate]) -> bool:
        """Judge a slot's candidates in order; False when the run has enough or gives up."""
        records = []
        for candidate in candidates:
            if self.progress.kept >= self._config.target:
                verdict = Verdict(candidate_id=candidate.id, reason=BEYOND_TARGET)
            else:
                verdict = self._judge.judge(candidate)
            record = Record(candidate=candidate, verdict=verdict)
            self._count(record)
            records.append(record)
        self._ledger.post_verdicts(slot, records)
        self._close(records)
        return self.progress.kept < self._config.target and not self.hopeless

    def enough(self, open_slots: int, guess: float) -> bool:
        """Whether the open slots will probably reach the target; `guess` is a slot's yield.

        The guess counts as a few slots until there are real ones.
        """
        yielded = self.progress.kept + GUESS_WEIGHT * guess
        expected = self.progress.kept + open_slots * yielded / (self.slots + GUESS_WEIGHT)
        return expected >= self._config.target

    # -- what earlier sessions judged ------------------------------------------------------------

    def _restore(self, filters: FiltersConfig, seeds: list[SeedTask]) -> None:
        """Bring judge and pool to where the last session left them."""
        files = rule_files(filters)
        settings = fingerprint([JUDGE_VERSION, filters.model_dump(mode="json"), files, seeds])
        if self._ledger.meta("verdicts") != settings:
            self._ledger.forget_verdicts()
            self._ledger.set_seeds(seeds)
            self._ledger.set_meta("verdicts", settings)
        self._reopen_last_slot()
        self._judge.prime(seeds)
        for records in self._judged_before():
            for record in records:
                if record.verdict.kept:
                    self._judge.add(record.candidate)
                self._count(record)
            self._close(records)
        self.progress.kept_before = self.progress.kept

    def _reopen_last_slot(self) -> None:
        """A slot that was cut short at an earlier target is judged again as a whole."""
        cut = self._ledger.db.execute(
            "SELECT min(slot) FROM candidates WHERE reason = ?", (BEYOND_TARGET,)
        ).fetchone()[0]
        kept = self._ledger.db.execute("SELECT count(*) FROM candidates WHERE reason = ''")
        if cut is not None and int(kept.fetchone()[0]) < self._config.target:
            self._ledger.forget_verdicts(from_slot=int(cut))

    def _judged_before(self) -> Iterator[list[Record]]:
        """The slots that earlier sessions judged, those without candidates too, in order."""
        records = self._ledger.records()
        following = next(records, None)
        for slot in range(self._ledger.judged()):
            own = []
            while following is not None and following.candidate.slot == slot:
                own.append(following)
                following = next(records, None)
            yield own

    def _count(self, record: Record) -> None:
        reason = record.verdict.reason
        if not reason:
            self.progress.kept += 1
            self._pool.add(record.candidate)
        elif reason == BEYOND_TARGET:
            self.progress.beyond_target += 1
        else:
            self.progress.rejected[reason] += 1

    def _close(self, records: list[Record]) -> None:
        """Take a judged slot into account."""
        kept = sum(record.verdict.kept for record in records)
        before = self._kept_after[-1] if self._kept_after else 0
        self._kept_after.append(before + kept)
        self.barren = 0 if kept else self.barren + 1
        first = records[0].candidate if records else None
        judged = SlotYield(
            strategy=first.strategy if first else "",
            candidates=len(records),
            kept=kept,
            cost=sum(record.candidate.cost for record in records),
            parents=first.parents if first else (),
        )
        self._steering.observe(judged)
        self.marginal.observe(judged)
        self.progress.judged = len(self._kept_after)
