"""Rows through the filters: a verdict for each, and the funnel they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Candidate, Verdict
from selfinstruct.steps.filters.judge import Judge, build_filters
from selfinstruct.steps.rows.chunks import Chunk, Fault, Found, Row
from selfinstruct.steps.rows.source import Source
from selfinstruct.steps.rows.task import Columns, Task
from selfinstruct.steps.seeds.faults import fault

# A file of which none of so many rows can be read is of another kind than was thought.
HOPELESS_ROWS = 100


class RowFunnel(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows: ``read == kept + sum(rejected.values())``.

    `flagged` counts kept rows by what rules found in them; a row may count more than once.
    """

    read: int
    kept: int
    rejected: dict[str, int]
    flagged: dict[str, int]


class Sieve:
    """Judges rows in order; each verdict depends on the rows kept before.

    Args:
        config: the filters.
        columns: which fields of a row are judged.

    Raises `RecipeError` where `config` cannot be served.
    """

    def __init__(self, config: FiltersConfig, columns: Columns) -> None:
        self._columns = columns
        self._judge = Judge(build_filters(config))
        self._read = 0
        self._kept = 0
        self._rejected: Counter[str] = Counter()
        self._flagged: Counter[str] = Counter()
        self._first: tuple[Found, Fault] | None = None
        self._readable = False

    @property
    def judged_columns(self) -> Sequence[str]:
        """The columns that a source must hand on."""
        return sorted(self._columns.judged)

    def prime(self, sources: Iterable[Source], seen: dict[str, Any] | None = None) -> int:
        """Let rows be novel against all rows of `sources` too; how many these were.

        They are put into `seen` by their place. Raises `SeedError` at the first that holds no task.
        """
        count = 0
        for source in sources:
            for chunk in source.chunks(self.judged_columns):
                for found in chunk.rows:
                    task = self._columns.task(found)
                    if isinstance(task, Fault):
                        raise fault(found.where, f"is no task ({task.reason}): {task.detail}")
                    self._judge.add(_candidate(found, task))
                    count += 1
                    if seen is not None:
                        seen[found.where] = found.value
        return count

    def judge(self, chunk: Chunk) -> list[Verdict]:
        """A verdict on each row of `chunk`.

        Raises `SeedError` if none of the first rows is of a kind that can be judged.
        """
        verdicts = [self._verdict(found) for found in chunk.rows]
        if not self._readable and self._read >= HOPELESS_ROWS:
            self.finish()
        return verdicts

    def finish(self) -> None:
        """Raise `SeedError` if there were rows and no filter could look at any of them."""
        if self._readable or self._first is None:
            return
        found, said = self._first
        whole = f"none of the first {self._read} rows" if self._read > 1 else "the only row is none"
        raise fault(
            found.where,
            f"{said.reason}: {said.detail} ({whole} that can be judged; is the file of another "
            "kind, or should the columns be named, as in --columns instruction=NAME,output=NAME?)",
        )

    def funnel(self) -> RowFunnel:
        """The counts so far, reasons by number."""
        return RowFunnel(
            read=self._read,
            kept=self._kept,
            rejected=_most_first(self._rejected),
            flagged=_most_first(self._flagged),
        )

    def _verdict(self, found: Found) -> Verdict:
        self._read += 1
        task = self._columns.task(found)
        if isinstance(task, Fault):
            self._first = self._first or (found, task)
            verdict = Verdict(candidate_id=found.where, reason=task.reason, detail=task.detail)
        else:
            self._readable = True
            verdict = self._judge.judge(_candidate(found, task))
        if verdict.kept:
            self._kept += 1
            self._flagged.update(verdict.flags)
        else:
            self._rejected[verdict.reason] += 1
        return verdict


def said_of(verdict: Verdict) -> Row:
    """What a file of rejected rows says of one, beside its own fields."""
    return {
        "filter_row": verdict.candidate_id,
        "filter_reason": verdict.reason,
        "filter_detail": verdict.detail,
        "filter_neighbour": verdict.neighbour,
        "filter_score": verdict.score,
    }


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _candidate(found: Found, task: Task) -> Candidate:
    return Candidate.plain(found.where, *task)
