"""One pass over a run's records: what the report shows of them, small whatever the run's size.

Samples are the records whose ids hash lowest. They are as good as random, the same each time, and
mostly the same when the run grows or is judged again.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from rapidfuzz import process
from rapidfuzz.distance import Indel

from selfinstruct.core.types import Passage, Record, SeedTask, Verdict
from selfinstruct.steps.filters.rules import REASONS as RULES
from selfinstruct.steps.roots import root_verb_object
from selfinstruct.steps.words import count_words, words_as_letters

KEPT_SAMPLES = 16
REJECTED_SAMPLES = 3  # of each reason
FAULT_SAMPLES = 10  # of each rule
REASONS = 24  # with samples; all of them are counted
MEASURED = 2000  # instructions compared with the seeds
SEEDS_COMPARED = 500
BARE = 20  # passages without a record that are named
GLIMPSE = 400  # characters of a parent or neighbour
FIELDS = ("instruction", "input", "output")


class Covered(msgspec.Struct, frozen=True):
    """How far the documents were asked about.

    `passages` in all, `asked` those with kept records, `bare` some of those without by their
    source, `ids` of those that the samples name.
    """

    passages: int
    asked: int
    bare: list[str]
    ids: frozenset[str]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the kept and rejected records add up to.

    `verbs` counts object nouns by root verb ("" for no object), `lengths` records by words, per
    field; empty inputs are not counted. `nearest` holds ROUGE-L F1 with the nearest seed for a
    sample of the kept instructions. `texts` gives the instruction or passage of each id that the
    samples name. `faults` are samples of what each rule rejected or flagged, with what it found in
    the verdict's `detail`. `generations` counts kept records by distance from the seeds (1: only
    human parents).
    """

    kept: int
    verbs: dict[str, dict[str, int]]
    lengths: dict[str, dict[int, int]]
    nearest: list[float]
    samples: list[Record]
    rejects: dict[str, list[Record]]
    faults: dict[str, list[Record]]
    texts: dict[str, str]
    seed_ids: frozenset[str]
    covered: Covered
    generations: dict[int, int]
    strategies: dict[str, int]
    teachers: dict[str, int]
    prompts: dict[str, int]


class _Lowest:
    """The records whose ids hash lowest, in the order they came."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.heap: list[tuple[int, int, Record]] = []

    def add(self, order: int, record: Record) -> None:
        item = (-zlib.crc32(record.candidate.id.encode("utf-8", "replace")), -order, record)
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, item)
        elif item[:2] > self.heap[0][:2]:
            heapq.heapreplace(self.heap, item)

    def records(self) -> list[Record]:
        return [record for _, _, record in sorted(self.heap, key=lambda item: -item[1])]


def summarize(
    seeds: Sequence[SeedTask], records: Iterable[Record], passages: Sequence[Passage] = ()
) -> Summary:
    """The summary of `records`, which come in the order they were judged."""
    verbs: dict[str, Counter[str]] = {}
    lengths: dict[str, Counter[int]] = {field: Counter() for field in FIELDS}
    texts = {seed.id: seed.instruction[:GLIMPSE] for seed in seeds}
    depth = dict.fromkeys(texts, 0)
    texts |= {one.id: f"{one.title}: {one.text}"[:GLIMPSE] for one in passages}
    asked: set[str] = set()
    tally = {name: Counter[str]() for name in ("strategies", "teachers", "prompts")}
    samples, measured = _Lowest(KEPT_SAMPLES), _Lowest(MEASURED)
    rejects: dict[str, _Lowest] = {}
    faults: dict[str, _Lowest] = {}
    kept = 0
    for order, record in enumerate(records):
        candidate = record.candidate
        for rule, fault in _faults(record):
            faults.setdefault(rule, _Lowest(FAULT_SAMPLES)).add(order, fault)
        if not record.verdict.kept:
            rejects.setdefault(record.verdict.reason, _Lowest(REJECTED_SAMPLES)).add(order, record)
            continue
        kept += 1
        texts[candidate.id] = candidate.instruction[:GLIMPSE]
        depth[candidate.id] = 1 + max((depth.get(p, 0) for p in candidate.parents), default=0)
        asked.update(candidate.parents)
        samples.add(order, record)
        measured.add(order, record)
        verb, noun = root_verb_object(candidate.instruction)
        verbs.setdefault(verb or "", Counter())[noun or ""] += 1
        for field in FIELDS:
            if text := getattr(candidate, field):
                lengths[field][count_words(text)] += 1
        tally["strategies"][candidate.strategy] += 1
        model = "" if candidate.model in candidate.teacher else f" {candidate.model}"
        tally["teachers"][f"{candidate.teacher}{model}"] += 1
        tally["prompts"][candidate.prompt_version] += 1
    shown = samples.records()
    rejected = {reason: found.records() for reason, found in rejects.items()}
    named = {p for r in shown for p in r.candidate.parents}
    named |= {r.verdict.neighbour for found in rejected.values() for r in found}
    generations = Counter(depth[i] for i in depth if depth[i])
    return Summary(
        kept=kept,
        verbs={verb: dict(nouns) for verb, nouns in verbs.items()},
        lengths={field: dict(sorted(found.items())) for field, found in lengths.items()},
        nearest=nearest_seed(
            [r.candidate.instruction for r in measured.records()],
            [seed.instruction for seed in seeds],
        ),
        samples=shown,
        rejects=rejected,
        faults={rule: found.records() for rule, found in faults.items()},
        texts={i: texts[i] for i in named if i in texts},
        seed_ids=frozenset(seed.id for seed in seeds),
        covered=_covered(passages, asked, named),
        generations=dict(sorted(generations.items())),
        **{name: dict(found.most_common()) for name, found in tally.items()},
    )


def _covered(passages: Sequence[Passage], asked: set[str], named: set[str]) -> Covered:
    bare = [one.source for one in passages if one.id not in asked]
    ids = frozenset(one.id for one in passages if one.id in named)
    return Covered(len(passages), len(passages) - len(bare), bare[:BARE], ids)


def _faults(record: Record) -> Iterator[tuple[str, Record]]:
    """What rules found in a record, by rule, as records whose verdict says it in `detail`."""
    verdict = record.verdict
    if verdict.reason in RULES:
        yield verdict.reason, record
    for rule, note in zip(verdict.flags, verdict.notes, strict=False):
        said = Verdict(candidate_id=verdict.candidate_id, detail=note)
        yield rule, Record(candidate=record.candidate, verdict=said)


def nearest_seed(instructions: Sequence[str], seeds: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of each instruction with the seed instruction nearest to it.

    Self-Instruct's Figure 4. At most `SEEDS_COMPARED` seeds are looked at, evenly spread.
    """
    step = max(1, -(-len(seeds) // SEEDS_COMPARED))
    asked = words_as_letters([*instructions, *seeds[::step]])
    rows = [row for row in asked[len(instructions) :] if row]
    if not rows:
        return []
    scores = []
    for text in asked[: len(instructions)]:
        best = process.extractOne(text, rows, scorer=Indel.normalized_similarity)
        scores.append(float(best[1]) if best else 0.0)
    return scores
