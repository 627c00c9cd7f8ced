"""The folder selection/ of a run: which of its kept records were selected, and their scores.

selection.json     what was selected and how, last of all
scores.parquet     a row for each candidate: selected or why not, and its scores
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import FolderError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.steps.model_files import model_mark
from selfinstruct.steps.scores.judge import asked_for, prompt_tag
from selfinstruct.steps.selection.choose import needs_vectors
from selfinstruct.steps.selection.methods import Choice, tally

SUMMARY = "selection.json"
SCORES = "scores.parquet"
PREFIX = "score_"  # of the columns that hold scores
LIKELIHOOD = ("perplexity", "ifd")  # scores by `select.model`
# Raise it when the same records and settings are to give another selection.
VERSION = 1

Task = Candidate | SeedTask


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A score over the candidates; `missing` have none. The rest is None where all are missing."""

    missing: int
    mean: float | None
    low: float | None
    median: float | None
    high: float | None
    mean_selected: float | None


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """selection.json. ``selected + sum(left.values()) == candidates``.

    `left` counts records that were not selected by reason, `groups` the selected ones by group
    where there are quotas. `faulty` rows of a dataset were no whole task, and `faults` tells the
    first of them. `fingerprint` is that of settings and records, `models` the marks of the local
    model files that were used, by name (see `steps.model_files`).
    """

    method: str
    candidates: int
    selected: int
    left: dict[str, int]
    scores: dict[str, Spread]
    fingerprint: str
    groups: dict[str, int] = {}
    faulty: int = 0
    faults: list[str] = []
    models: dict[str, str] = {}


class Standing(msgspec.Struct, frozen=True):
    """A record's row in scores.parquet. `rank` counts from 1, 0 where it was not selected."""

    id: str
    rank: int
    reason: str
    scores: dict[str, float | None]


def selection_mark(
    config: SelectConfig, teacher: TeacherConfig, seed: int, tasks: Iterable[Task]
) -> str:
    """The fingerprint of what a selection follows from: settings, seed and records.

    Where a judge is asked, so are its prompts, and `teacher` if it is the judge.
    """
    digest = hashlib.sha256()
    for task in tasks:
        parts = (task.id, task.instruction, task.input, task.output, task.category)
        digest.update(msgspec.json.encode(parts))
    names: list[str] = [*([config.score] if config.score else []), *config.scores]
    judged = asked_for(names)
    judge = config.judge.teacher or teacher
    asked = [prompt_tag(name) for name in judged] + ([judge.kind, judge.model] if judged else [])
    settings = config.model_dump(mode="json", exclude={"judge": {"teacher", "batch"}})
    return fingerprint([VERSION, settings, asked, seed, digest.hexdigest()])


def models_used(config: SelectConfig) -> dict[str, str]:
    """The marks of the model folders and files on this machine that the settings use, by name."""
    names: list[str] = [*([config.score] if config.score else []), *config.scores]
    used = [config.model] if set(names) & set(LIKELIHOOD) else []
    if "reward" in names and config.reward_model is not None:
        used.append(config.reward_model)
    if needs_vectors(config):
        used.append(config.embedder)
    return {name: mark for name in used if (mark := model_mark(name))}


def is_current(found: Selection | None, mark: str, config: SelectConfig) -> bool:
    """Whether a selection follows from these settings and records, and from the models' files.

    A model that is no longer there says nothing against what was selected by it.
    """
    if found is None or found.fingerprint != mark:
        return False
    return all(found.models.get(name) == now for name, now in models_used(config).items())


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


def summed_up(
    config: SelectConfig,
    tasks: Sequence[Task],
    scores: Mapping[str, Sequence[float | None]],
    choice: Choice,
    groups: Sequence[str],
    mark: str,
) -> tuple[Selection, list[Standing]]:
    """What became of all records, and of each. `groups` is empty without quotas."""
    ranks = {at: rank for rank, at in enumerate(choice.chosen, 1)}
    standings = [
        Standing(
            task.id,
            ranks.get(at, 0),
            choice.reasons.get(at, ""),
            {name: values[at] for name, values in scores.items()},
        )
        for at, task in enumerate(tasks)
    ]
    taken = Counter(groups[at] for at in choice.chosen) if groups else Counter[str]()
    summary = Selection(
        method=config.method,
        candidates=len(tasks),
        selected=len(choice.chosen),
        left=tally(choice.reasons),
        scores={name: spread(values, choice.chosen) for name, values in scores.items()},
        groups=dict(sorted(taken.items(), key=lambda item: (-item[1], item[0]))),
        fingerprint=mark,
        models=models_used(config),
    )
    return summary, standings


def spread(scores: Sequence[float | None], chosen: Sequence[int]) -> Spread:
    """How a score is spread over all records, and its mean over those at `chosen`."""
    known = sorted(score for score in scores if score is not None)
    selected = [score for at in chosen if (score := scores[at]) is not None]
    return Spread(
        missing=len(scores) - len(known),
        mean=statistics.fmean(known) if known else None,
        low=known[0] if known else None,
        median=statistics.median(known) if known else None,
        high=known[-1] if known else None,
        mean_selected=statistics.fmean(selected) if selected else None,
    )
