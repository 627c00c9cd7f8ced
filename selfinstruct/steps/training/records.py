"""The rows of a dataset folder that a student is trained or measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from selfinstruct.core.errors import FolderError
from selfinstruct.steps.splits import MIN_RECORDS
from selfinstruct.steps.tables import MESSAGES

COLUMNS = ("id", "instruction", "input", "output")
Row = dict[str, Any]


def read_split(dataset: Path, split: Literal["train", "test"]) -> list[Row]:
    """The rows of a split, with id, instruction, input and output, in the files' order.

    A conversation of several turns has `messages` besides.

    Raises `FolderError` where the split is not there, empty, unreadable or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted((dataset / "data").glob(f"{split}-*.parquet"))
    if not paths:
        raise FolderError(f"{dataset}: {_missing(dataset, split)}")
    rows: list[Row] = []
    for path in paths:
        try:
            names = [*COLUMNS, MESSAGES] if MESSAGES in pq.read_schema(path).names else COLUMNS
            rows += pq.read_table(path, columns=list(names)).to_pylist()
        except (pa.ArrowException, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise FolderError(
                f"{path}: cannot be read as records ({first}); run: selfinstruct export --force"
            ) from None
        missing = [name for name in COLUMNS if rows and name not in rows[-1]]
        if missing:
            raise FolderError(f"{path}: has no column {missing[0]!r}; run: selfinstruct export")
    if not rows:
        raise FolderError(f"{dataset}: {_missing(dataset, split)}")
    return rows


def _missing(dataset: Path, split: Literal["train", "test"]) -> str:
    if split == "train":
        return "no training records here; run: selfinstruct export"
    try:
        made = json.loads((dataset / "dataset.json").read_bytes())
        moved, train = int(made["moved_to_train"]), int(made.get("train", 0))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        moved = train = 0
    if moved:
        return (
            f"no held-out records here: all {moved:,} that were drawn are near-duplicates of "
            "training records, and were moved there; give more varied records, or data with a "
            "split named test"
        )
    what = "no held-out records here, so there is nothing to measure on; "
    if 0 < train < MIN_RECORDS:
        return (
            f"{what}of fewer than {MIN_RECORDS} records, {train} here, there may be none: give "
            "more, or data with a split named test"
        )
    return f"{what}set dataset.held_out above 0, then run: selfinstruct export"
