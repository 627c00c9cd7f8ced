"""What the filters did to a dataset, as a page: the funnel, and examples of each thing found."""

from __future__ import annotations

import random
from collections.abc import Sequence

from selfinstruct.core.types import Candidate, Record, Verdict
from selfinstruct.steps.charts.faults import EXAMPLES, Found, examples_of
from selfinstruct.steps.charts.markup import facts, paragraph, table, text
from selfinstruct.steps.charts.numbers import count, percent
from selfinstruct.steps.charts.page import Page
from selfinstruct.steps.charts.samples import LONGEST_REJECTED
from selfinstruct.steps.filters.judge import REASONS
from selfinstruct.steps.rows.chunks import Chunk, Fault
from selfinstruct.steps.rows.chunks import Found as Row
from selfinstruct.steps.rows.sieve import RowFunnel
from selfinstruct.steps.rows.task import REASONS as UNREADABLE
from selfinstruct.steps.rows.task import Columns, Task

MEANINGS = {**UNREADABLE, **REASONS}


class Examples:
    """Some rows of each reason and each flag, drawn by chance while a dataset goes by.

    Every row has the same chance, whatever the dataset's length (algorithm R, Vitter 1985), and
    the same dataset has the same examples.

    Args:
        columns: which fields of a row are judged.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._random = random.Random(0)
        self._seen: dict[str, int] = {}
        self._drawn: dict[str, list[Record]] = {}

    def add(self, chunk: Chunk, verdicts: Sequence[Verdict]) -> None:
        """Look at the rows of `chunk` and what was decided of each."""
        for row, verdict in zip(chunk.rows, verdicts, strict=True):
            if not verdict.kept:
                self._draw(verdict.reason, verdict.detail, row, verdict)
            for flag, note in zip(verdict.flags, verdict.notes, strict=True):
                self._draw(flag, note, row, verdict)

    def of(self, reason: str) -> list[Record]:
        """Up to `EXAMPLES` rows; each verdict's `detail` begins with the row's place."""
        return self._drawn.get(reason, [])

    def _draw(self, reason: str, detail: str, row: Row, verdict: Verdict) -> None:
        seen = self._seen[reason] = self._seen.get(reason, 0) + 1
        drawn = self._drawn.setdefault(reason, [])
        place = len(drawn) if seen <= EXAMPLES else self._random.randrange(seen)
        if place < EXAMPLES:
            drawn[place : place + 1] = [self._record(f"{row.where}: {detail}", row, verdict)]

    def _record(self, detail: str, row: Row, verdict: Verdict) -> Record:
        task = self._columns.task(row)
        if isinstance(task, Fault):
            raw = row.raw.decode("utf-8", "replace") if row.raw is not None else str(row.value)
            task = Task(raw, "", "")
        candidate = Candidate.plain(row.where, *map(_beginning, task))
        said = Verdict(candidate_id=row.where, detail=_beginning(detail), score=verdict.score)
        return Record(candidate=candidate, verdict=said)


def filtered_page(name: str, funnel: RowFunnel, examples: Examples) -> str:
    """The page as HTML; it holds rows of the data. `name` is the dataset's."""
    lead = facts(
        [
            ("Rows read", count(funnel.read)),
            ("Kept", f"{count(funnel.kept)} ({percent(funnel.kept, funnel.read)})"),
            ("Kept with a flag, most common", _most_common(funnel)),
        ]
    )
    page = Page(name, lead, kind="filter report")
    page.add("rejected", "Rejected rows", _section(funnel.rejected, funnel.read, examples))
    page.add("flagged", "Flags of kept rows", _section(funnel.flagged, funnel.kept, examples))
    return page.html()


def _beginning(text: str) -> str:
    """As much as the page shows of a text, so that a row of megabytes is not kept."""
    if len(text) <= LONGEST_REJECTED:
        return text
    left = len(text) - LONGEST_REJECTED
    return f"{text[: LONGEST_REJECTED - 40]} ... {left + 40:,} more characters"


def _most_common(funnel: RowFunnel) -> str:
    return ", ".join(
        f"{flag.replace('_', ' ')} {count(number)}"
        for flag, number in list(funnel.flagged.items())[:3]
    )


def _section(counts: dict[str, int], of: int, examples: Examples) -> str:
    if not counts:
        return paragraph("None.")
    rows = [
        (
            text(reason.replace("_", " ")),
            text(MEANINGS.get(reason, "")),
            count(number),
            percent(number, of),
        )
        for reason, number in counts.items()
    ]
    return (
        table(
            f"Of {count(of)} rows",
            ("Reason", "It says that", "Rows", "Share"),
            rows,
            numbers=(2, 3),
        )
        + paragraph(f"Up to {EXAMPLES} of each, drawn by chance.", "note")
        + "".join(
            examples_of(Found(reason, MEANINGS.get(reason, ""), "", number, examples.of(reason)))
            for reason, number in counts.items()
        )
    )
