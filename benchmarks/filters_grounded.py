"""A job of `filters_drive.py`: answers next to the text they were written about, and to another.

Databricks' people were given a text and a question, and mostly answered from the text; some wrote
what they knew besides. That is what grounding has to tell apart, so what it rejects next to an
answer's own text is not all of it wrong.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence

from texts import data_folder

from selfinstruct.core.sections.filters import GroundedConfig
from selfinstruct.core.types import Candidate, Passage
from selfinstruct.steps.filters.grounded import FOREIGN_FIGURE, NOT_GROUNDED, Grounded

Said = dict[str, object]
Row = dict[str, str]
DOLLY = "dolly_3k.jsonl"
LEAST_INPUT, LEAST_OUTPUT = 40, 5  # words
PRECISIONS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)


def grounded(given: argparse.Namespace) -> Said:
    """The share kept next to the own text and next to another's, by `precision`."""
    rows = _rows()
    if not rows:
        return {"rows": 0}
    others = rows[1:] + rows[:1]
    by_precision = [
        {
            "precision": precision,
            "own": _kept(rows, rows, precision, figures=False),
            "another": _kept(rows, others, precision, figures=False),
        }
        for precision in PRECISIONS
    ]
    default = GroundedConfig().precision
    found = [_reason(row, row, default, figures=True) for row in rows]
    return {
        "rows": len(rows),
        "precision": default,
        "kept_next_to_own": 1 - found.count(NOT_GROUNDED) / len(rows),
        "kept_next_to_another": _kept(rows, others, default, figures=False),
        "foreign_figure": found.count(FOREIGN_FIGURE) / len(rows),
        "by_precision": by_precision,
    }


def _rows() -> list[Row]:
    """Dolly's records with a text as input, in an order drawn with a fixed seed."""
    folder = data_folder()
    if folder is None or not (folder / DOLLY).is_file():
        return []
    rows = [json.loads(line) for line in (folder / DOLLY).read_text("utf-8").splitlines()]
    rows = [
        row
        for row in rows
        if len(row["input"].split()) >= LEAST_INPUT and len(row["output"].split()) >= LEAST_OUTPUT
    ]
    random.Random(3).shuffle(rows)
    return rows


def _kept(rows: Sequence[Row], texts: Sequence[Row], precision: float, *, figures: bool) -> float:
    reasons = [
        _reason(row, text, precision, figures=figures)
        for row, text in zip(rows, texts, strict=True)
    ]
    return reasons.count("") / len(rows)


def _reason(row: Row, text: Row, precision: float, *, figures: bool) -> str:
    look = Grounded([Passage(id="p", text=text["input"])], precision, figures)
    plain = Candidate.plain("c", row["instruction"], "", row["output"])
    verdict = look.check(
        Candidate(
            id=plain.id,
            slot=0,
            index=0,
            strategy="",
            instruction=plain.instruction,
            output=plain.output,
            parents=("p",),
        )
    )
    return verdict.reason if verdict else ""
