"""Compare: two runs or datasets side by side; reads both and writes nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.diversity.measures import Diversity, measure
from selfinstruct.steps.diversity.overlap import Overlap, overlap
from selfinstruct.steps.diversity.topics import can_find_topics, topics_of
from selfinstruct.steps.selection.rows import read_dataset

Task = Candidate | SeedTask


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two. `faulty` rows of a dataset were no whole record and are left out."""

    source: str
    diversity: Diversity
    faulty: int = 0


class SharedTopic(msgspec.Struct, frozen=True):
    """A topic found in both together, and how many records of each are in it."""

    name: str
    first: int
    second: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two sets of records side by side; `topics` are none where scikit-learn is missing."""

    first: Side
    second: Side
    overlap: Overlap
    topics: list[SharedTopic]


def compare(first: Path, second: Path) -> Comparison:
    """Compare two sources, each a run's folder or any dataset.

    A run's records are the kept ones, and without a teacher all of its data.

    Raises `SeedError` or `FolderError` where one cannot be read.
    """
    (one, one_faulty), (other, other_faulty) = _tasks(first), _tasks(second)
    return Comparison(
        first=Side(source=str(first), diversity=measure(one), faulty=one_faulty),
        second=Side(source=str(second), diversity=measure(other), faulty=other_faulty),
        overlap=overlap(one, other),
        topics=_topics(one, other) if can_find_topics() else [],
    )


def _tasks(source: Path) -> tuple[list[Task], int]:
    """The records of a source, and how many of its rows are none."""
    if (source / "recipe.yaml").is_file():
        folder = RunFolder.open(source)
        with Ledger.read(folder.db_path) as ledger:
            if folder.recipe().teacher is None:
                return [*ledger.seeds()], 0  # they are the records
            return [record.candidate for record in ledger.records(kept=True)], 0
    read = read_dataset(source)
    return [*read.tasks], len(read.faults)


def _topics(one: list[Task], other: list[Task]) -> list[SharedTopic]:
    topics, places = topics_of([task.instruction for task in (*one, *other)])
    ours, theirs = places[: len(one)], places[len(one) :]
    return [
        SharedTopic(topic.name, ours.count(at), theirs.count(at)) for at, topic in enumerate(topics)
    ]
