"""What two sets of records share: the same tasks, and nearly the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.filters.minhash import NearDuplicate
from selfinstruct.steps.words import same_wording

Task = Candidate | SeedTask

THRESHOLD, NGRAM = 0.7, 3


class Overlap(msgspec.Struct, frozen=True):
    """How many records of each set are in the other one.

    `same` have an instruction and input that are there but for case, spacing and outer punctuation;
    `near` share `THRESHOLD` of their word 3-grams (Jaccard, the output included) with one there.
    """

    same_of_first: int
    same_of_second: int
    near_of_first: int
    near_of_second: int


def overlap(first: Sequence[Task], second: Sequence[Task]) -> Overlap:
    """What the two sets share."""
    keys = [{_key(task) for task in tasks} for tasks in (first, second)]
    return Overlap(
        sum(_key(task) in keys[1] for task in first),
        sum(_key(task) in keys[0] for task in second),
        _near(first, second),
        _near(second, first),
    )


def _key(task: Task) -> tuple[str, str]:
    return same_wording(task.instruction), task.input.strip()


def _near(tasks: Sequence[Task], others: Sequence[Task]) -> int:
    filter_ = NearDuplicate(THRESHOLD, NGRAM)
    for other in others:
        filter_.add(other)
    return sum(filter_.check(_as_candidate(task)) is not None for task in tasks)


def _as_candidate(task: Task) -> Candidate:
    if isinstance(task, Candidate):
        return task
    return Candidate.plain(task.id, task.instruction, task.input, task.output)
