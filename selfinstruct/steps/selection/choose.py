"""Choose among records by the settings of the recipe's section `select`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.core.types import Book, Candidate, SeedTask, task_text
from selfinstruct.steps.embedding.kept import Kept
from selfinstruct.steps.embedding.vectors import Embedder, Vectors
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.selection import methods
from selfinstruct.steps.selection.groups import groups_of

Task = Candidate | SeedTask
Tell = Callable[[str, int, int], None]
"""Called with what is worked out, how much of it is done, and of how much."""

EMBEDDED = 1024  # texts embedded at a time


def chosen_of(
    tasks: Sequence[Task],
    scores: Mapping[str, Sequence[float | None]],
    config: SelectConfig,
    seed: int,
    policy: Policy,
    tell: Tell,
    book: Book | None = None,
) -> tuple[methods.Choice, list[str]]:
    """The positions chosen, and the group of each record (empty without quotas).

    Args:
        tasks: the records.
        scores: a value a record for each score that `config` names.
        config: the settings.
        seed: of random draws, and of the order of equals.
        policy: whether the Hub may be asked for an embedder.
        tell: told of what takes long.
        book: keeps embeddings.

    Raises `UserError` where the embedder or the groups cannot be had, `MissingDependency`.
    """
    groups = groups_of(tasks, config.quota_by, config.topics) if config.quota else []
    quota = methods.Quota(groups or None, config.quota)
    vectors_of = partial(_vectors, tasks, config.embedder, policy, tell, book)
    if config.method in ("k_center", "facility_location"):
        from selfinstruct.steps.selection import coverage

        assert config.count is not None  # noqa: S101 (the recipe's model checks it)
        take = coverage.k_center if config.method == "k_center" else coverage.facility_location
        return take(vectors_of(), config.count, quota), groups
    order = methods.draw([task.id for task in tasks], seed)
    unscored: dict[int, str] = {}
    if config.method == "top_k":
        assert config.score is not None  # noqa: S101 (the recipe's model checks it)
        ranked = methods.by_score(order, scores[config.score], lowest=config.lowest)
        unscored = dict.fromkeys(set(order) - set(ranked), methods.NOT_SCORED)
        order = ranked
    vectors = vectors_of() if config.min_distance else None
    choice = methods.first(order, config.count, quota, vectors, config.min_distance)
    return methods.Choice(choice.chosen, choice.reasons | unscored), groups


def needs_vectors(config: SelectConfig) -> bool:
    """Whether records are compared by their embeddings."""
    return bool(config.min_distance) or config.method in ("k_center", "facility_location")


def _vectors(
    tasks: Sequence[Task], embedder: str, policy: Policy, tell: Tell, book: Book | None
) -> Vectors:
    """The records' embeddings; what is compared is instruction and input."""
    import numpy as np

    from selfinstruct.steps.embedding.build import build_embedder

    made = build_embedder(embedder, policy, "select.embedder")
    model: Embedder = made if book is None else Kept(made, book)
    parts = []
    for start in range(0, len(tasks), EMBEDDED):
        batch = tasks[start : start + EMBEDDED]
        parts.append(model.embed([task_text(task) for task in batch]))
        tell("embedding", start + len(batch), len(tasks))
    return Vectors(np.concatenate(parts))
