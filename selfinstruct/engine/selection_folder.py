"""The folder selection/ of a run: which of its kept records were selected, and their scores.

selection.json     what was selected and how, last of all
scores.parquet     a row for each candidate: selected or why not, and its scores
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import FolderError
from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.engine.selection import Selection, Standing, is_current

SUMMARY = "selection.json"
SCORES = "scores.parquet"
PREFIX = "score_"  # of the columns that hold scores


def refuse_foreign(folder: Path) -> None:
    """Raise `FolderError` where `folder` holds something that no selection wrote."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FolderError(f"{folder}: is a file; give a folder with --output")
    found = {child.name for child in folder.iterdir()}
    if found and not found & {"run.lock", SUMMARY}:
        raise FolderError(f"{folder}: holds other files; give a new folder with --output")
    if "recipe.yaml" in found:
        raise FolderError(f"{folder}: is a run; give another folder with --output")


def read_selection(folder: Path) -> Selection | None:
    """What the selection folder holds, or None where it is missing, incomplete or of another kind.

    Raises `FolderError` where selection.json is no JSON.
    """
    found = RunFolder(folder).read_json(folder / SUMMARY)
    try:
        summary = msgspec.convert(found, Selection)
    except msgspec.ValidationError:
        return None
    return summary if (folder / SCORES).is_file() else None


def current_selection(folder: RunFolder, mark: str, config: SelectConfig) -> dict[str, Standing]:
    """The selected records by id, in order of rank.

    Raises `FolderError` where the selection was made from other records, settings or models, or not
    yet.
    """
    found = read_selection(folder.selection)
    if not is_current(found, mark, config):
        was = "not made yet" if found is None else "of other settings, records or models"
        raise FolderError(
            f"{folder.selection}: the selection is {was}; run: selfinstruct select {folder.path}"
        )
    standings = read_standings(folder.selection / SCORES)
    chosen = sorted((one for one in standings if one.rank), key=lambda one: one.rank)
    return {one.id: one for one in chosen}


def read_standings(path: Path) -> Iterator[Standing]:
    """The rows of scores.parquet."""
    import pyarrow.parquet as pq

    for row in pq.read_table(path).to_pylist():
        scores = {name.removeprefix(PREFIX): row[name] for name in row if name.startswith(PREFIX)}
        yield Standing(row["id"], row["rank"], row["reason"], scores)


def write_selection(
    folder: Path, summary: Selection, standings: Sequence[Standing], names: Sequence[str]
) -> None:
    """Write both files into `folder`, the summary last. Raises `OSError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "id": pa.array([one.id for one in standings], pa.string()),
        "rank": pa.array([one.rank for one in standings], pa.int64()),
        "reason": pa.array([one.reason for one in standings], pa.string()),
    }
    for name in names:
        found = [one.scores.get(name) for one in standings]
        columns[f"{PREFIX}{name}"] = pa.array(found, pa.float64())
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / SCORES, compression="zstd")
    write_json(folder / SUMMARY, msgspec.to_builtins(summary))
