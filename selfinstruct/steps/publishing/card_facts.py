"""What the dataset card tells, as plain facts: who wrote, from which examples, for how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePath

import msgspec

from selfinstruct.core.types import Passage, Record, SeedTask
from selfinstruct.steps.seeds.given import Given


class Writer(msgspec.Struct, frozen=True):
    """Who wrote kept records: teacher and model, asked how, and how many were kept."""

    teacher: str
    model: str
    strategy: str
    prompt_version: str
    kept: int


class Source(msgspec.Struct, frozen=True):
    """A file of human examples: its bare name ("" for a private one) and how many it gave.

    For a document, how many passages.
    """

    name: str
    examples: int
    private: bool


class Cost(msgspec.Struct, frozen=True):
    """A line of the bill up to here; `cost` in picodollars."""

    item: str
    quantity: float
    unit: str
    cost: int
    estimated: bool


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the card says.

    `files` maps config and split to rows; `human` counts the seeds among the training records;
    `funnel` is (step, count) in order; `checks` says what a record had to pass, one line each.
    """

    name: str
    license: str
    language: list[str]
    files: dict[str, dict[str, int]]
    human: int
    moved_to_train: int
    sources: list[Source]
    writers: list[Writer]
    funnel: list[tuple[str, int]]
    rejected: dict[str, int]
    costs: list[Cost]
    checks: list[str]
    samples: list[dict[str, str]]
    system_prompt: bool
    version: str
    documents: list[Source] = []


def writers(kept: Iterable[Record]) -> list[Writer]:
    """Who wrote the kept records, in alphabetical order."""
    found = (record.candidate for record in kept)
    counts = Counter((c.teacher, c.model, c.strategy, c.prompt_version) for c in found)
    return [Writer(*key, kept=n) for key, n in sorted(counts.items())]


def sources(seeds: Iterable[SeedTask | Given]) -> list[Source]:
    """The files in order, by bare name; a private one's name stays private."""
    counts: Counter[tuple[str, bool]] = Counter()
    for seed in seeds:
        name = PurePath(seed.source.rpartition(":")[0]).name
        counts["" if seed.private else name, seed.private] += 1
    return [Source(name, n, private) for (name, private), n in counts.items()]


def documents(passages: Iterable[Passage], asked: Collection[str]) -> list[Source]:
    """The documents in order, with the passages that are among the ids `asked`.

    A private one's name stays private: all of those are one source.
    """
    counts: Counter[tuple[str, bool]] = Counter()
    for passage in passages:
        if passage.id in asked:
            name = passage.id.rpartition("#")[0]
            counts["" if passage.private else name, passage.private] += 1
    return [Source(name, n, private) for (name, private), n in counts.items()]
