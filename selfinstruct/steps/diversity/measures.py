"""Measures of variety: lengths, distinct n-grams, verbs, nearest neighbours, coverage of seeds.

Each is a function of the texts alone. What compares pairs works on a sample, so that 50,000
records take seconds; the sample is of the texts whose hashes are lowest, the same each time.
"""

from __future__ import annotations

import statistics
import zlib
from collections import Counter
from collections.abc import Sequence

import msgspec
from rapidfuzz import process
from rapidfuzz.distance import Indel

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.roots import root_verb_object
from selfinstruct.steps.words import count_words, unicode_words, words_as_letters

Task = Candidate | SeedTask

FIELDS = ("instruction", "input", "output")
NGRAMS = (1, 2, 3)
MEASURED, COMPARED = 500, 4000  # texts that look for a neighbour, and those they look among
NEAR = 0.4  # ROUGE-L F1 from which a record counts as near a seed: about half of the words shared


class Length(msgspec.Struct, frozen=True):
    """Words of a field, over the records that have it."""

    records: int
    mean: float
    median: float
    longest: int


class Diversity(msgspec.Struct, frozen=True, kw_only=True):
    """How varied a set of records is.

    `distinct` is the share of different n-grams among all n-grams of the instructions, by n: it
    falls as a set grows. `verbs` counts records by root verb, the most common first. `nearest`
    are ROUGE-L F1 of a sample of the instructions with the nearest other one, in order.
    """

    records: int
    lengths: dict[str, Length]
    distinct: dict[str, float]
    verbs: dict[str, int]
    nearest: list[float]


class Coverage(msgspec.Struct, frozen=True):
    """What became of the seeds.

    `near` of the `seeds` have a kept record with an F1 of `NEAR` or more; `unreached` are those
    that no kept record has among its parents, by id.
    """

    seeds: int
    near: int
    unreached: list[str]


def measure(tasks: Sequence[Task]) -> Diversity:
    """The diversity of `tasks`."""
    instructions = [task.instruction for task in tasks]
    verbs = Counter(root_verb_object(text)[0] or "" for text in instructions)
    unnamed = verbs.pop("", 0)
    named = dict(sorted(verbs.items(), key=lambda item: (-item[1], item[0])))
    return Diversity(
        records=len(tasks),
        lengths={field: _length([getattr(task, field) for task in tasks]) for field in FIELDS},
        distinct={str(n): distinct(instructions, n) for n in NGRAMS},
        verbs=named | ({"": unnamed} if unnamed else {}),
        nearest=sorted(nearest_others(instructions)),
    )


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams per n-gram (distinct-n, Li et al. 2016); 0 where there are none."""
    seen, total = set[tuple[str, ...]](), 0
    for text in texts:
        words = unicode_words(text)
        found = list(zip(*(words[start:] for start in range(n)), strict=False))
        total += len(found)
        seen.update(found)
    return len(seen) / total if total else 0.0


def nearest_others(texts: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of up to `MEASURED` texts with the nearest of up to `COMPARED` other texts."""
    drawn = sorted(range(len(texts)), key=lambda at: (_hash(texts[at]), at))[:COMPARED]
    rows = words_as_letters([texts[at] for at in drawn])
    scores = []
    for at, row in enumerate(rows[:MEASURED]):
        others = rows[:at] + rows[at + 1 :]
        best = process.extractOne(row, others, scorer=Indel.normalized_similarity) if row else None
        if best is not None:
            scores.append(float(best[1]))
    return scores


def coverage(seeds: Sequence[SeedTask], kept: Sequence[Candidate]) -> Coverage:
    """How many seeds have a near record, and which have no descendant."""
    parents = {parent for candidate in kept for parent in candidate.parents}
    unreached = [seed.id for seed in seeds if seed.id not in parents]
    drawn = sorted(kept, key=lambda c: (_hash(c.instruction), c.id))[:COMPARED]
    rows = words_as_letters(
        [*(c.instruction for c in drawn), *(seed.instruction for seed in seeds)]
    )
    records, asked = rows[: len(drawn)], rows[len(drawn) :]
    near = 0
    for row in asked:
        best = process.extractOne(row, records, scorer=Indel.normalized_similarity)
        near += best is not None and best[1] >= NEAR
    return Coverage(len(seeds), near, unreached)


def _length(texts: Sequence[str]) -> Length:
    words = [count_words(text) for text in texts if text]
    if not words:
        return Length(0, 0.0, 0.0, 0)
    return Length(len(words), statistics.fmean(words), float(statistics.median(words)), max(words))


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))
