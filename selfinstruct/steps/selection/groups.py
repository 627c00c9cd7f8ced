"""The groups that quotas bound: by root verb, by category, or by topic."""

from __future__ import annotations

from collections.abc import Sequence

from selfinstruct.core.errors import UserError
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.diversity.topics import FEWEST, topics_of
from selfinstruct.steps.roots import root_verb_object


def groups_of(
    tasks: Sequence[Candidate | SeedTask], by: str, topics: int | None = None
) -> list[str]:
    """The group of each record.

    Args:
        tasks: the records.
        by: "verb", "category" or "topic".
        topics: how many topics; the report's number where not given.

    Raises `UserError` where there are no topics, `MissingDependency` without scikit-learn.
    """
    if by == "category":
        return [task.category for task in tasks]
    if by == "verb":
        return [root_verb_object(task.instruction)[0] or "" for task in tasks]
    found, places = topics_of([task.instruction for task in tasks], topics)
    if not found:
        raise UserError(
            f"select.quota_by: {len(tasks)} records show no topics (at least {FEWEST} that share "
            "words are needed); use verb or category"
        )
    names: list[str] = []
    for topic in found:  # two topics may have the same name
        again = sum(name.partition(" #")[0] == topic.name for name in names)
        names.append(f"{topic.name} #{again + 1}" if again else topic.name)
    return [names[place] for place in places]
