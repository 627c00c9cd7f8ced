"""A selection: what it follows from, and what became of each record."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from selfinstruct.core.ids import fingerprint
from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.model_files import model_mark
from selfinstruct.steps.scores.judge import asked_for, prompt_tag
from selfinstruct.steps.selection.choose import needs_vectors
from selfinstruct.steps.selection.methods import Choice, tally

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
    config: SelectConfig, teacher: TeacherConfig | None, seed: int, tasks: Iterable[Task]
) -> str:
    """The fingerprint of what a selection follows from: settings, seed and records.

    Where a judge is asked, so are its prompts, and `teacher` if it is the judge.
    """
    digest = hashlib.sha256()
    for task in tasks:
        parts = (task.id, task.instruction, task.input, task.output, task.category)
        digest.update(msgspec.json.encode(parts))
    judged = asked_for([*config.score_names])
    judge = config.judge.teacher or teacher
    asked = [prompt_tag(name) for name in judged]
    asked += [judge.kind, judge.model] if judged and judge is not None else []
    settings = config.model_dump(mode="json", exclude={"judge": {"teacher", "batch"}})
    return fingerprint([VERSION, settings, asked, seed, digest.hexdigest()])


def models_used(config: SelectConfig) -> dict[str, str]:
    """The marks of the model folders and files on this machine that the settings use, by name."""
    names = config.score_names
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
