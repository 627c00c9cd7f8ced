"""The held-out split: chosen by id, and free of near-duplicates of the training split.

Whether a record is chosen follows from a hash of its id alone, so the choice stays when the
dataset grows or is filtered again. A chosen record near a training record is moved to the training
split, since an evaluation on it would measure memory. So is one near a moved record, hence rounds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from selfinstruct.core.types import Candidate, Filter, SeedTask, Verdict
from selfinstruct.steps.filters.jaccard_index import grams
from selfinstruct.steps.filters.novelty import Novelty
from selfinstruct.steps.words import unicode_words

MIN_RECORDS = 10  # from so many records on, at least one is held out
ROUGE_THRESHOLD = 0.7
JACCARD_THRESHOLD = 0.5
NGRAM = 3
FILL_IN_RECORDS = 256  # how many records are looked at to find that one

_SPAN = 2**64

MakeFilters = Callable[[], Sequence[Filter]]


class Item(NamedTuple):
    """A record as the split sees it: its id and the text that must not be met twice."""

    id: str
    text: str


class Split(msgspec.Struct, frozen=True):
    """Ids of both splits, in the order of the records, and how many were chosen but moved."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    moved_to_train: int


def text_of(instruction: str, input: str) -> str:
    """The text that two records are compared by."""
    return f"{instruction}\n{input}" if input else instruction


def rank(record_id: str, draw: str = "held-out") -> int:
    """The record's place in a draw: uniform in [0, 2**64), from its id and the draw's name."""
    digest = hashlib.sha256(f"{draw}:{record_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def drawn(record_id: str, share: float, draw: str) -> bool:
    """Whether the record is among the `share` that a draw picks; those of less stay with more."""
    return rank(record_id, draw) < share * _SPAN


def split(
    items: Sequence[Item],
    share: float,
    make_filters: MakeFilters,
    also_in_train: Iterable[str] = (),
) -> Split:
    """Hold out about `share` of `items`.

    Args:
        items: the records, ids unique.
        share: 0 holds nothing out; below 1. Of `MIN_RECORDS` and more, at least one is held out,
            unless each is near another one.
        make_filters: fresh filters, which say what counts as near.
        also_in_train: texts that are in the training split whatever happens (human seeds).
    """
    chosen = _chosen(items, share)
    fixed = [Item("", text) for text in also_in_train]
    train = [item for item in items if item.id not in chosen]
    held_out = _apart([item for item in items if item.id in chosen], fixed + train, make_filters)
    moved = len(chosen) - len(held_out)
    if share > 0 and len(items) >= MIN_RECORDS and not held_out:
        held_out = _one(items, fixed, make_filters)
        moved -= sum(item.id in chosen for item in held_out)
    ids = {item.id for item in held_out}
    return Split(
        train=tuple(item.id for item in items if item.id not in ids),
        held_out=tuple(item.id for item in items if item.id in ids),
        moved_to_train=moved,
    )


def _chosen(items: Sequence[Item], share: float) -> set[str]:
    """The ids that the hash picks; one record at least stays for training."""
    chosen = {item.id for item in items if drawn(item.id, share, "held-out")}
    if chosen and len(chosen) == len(items):
        chosen.discard(max(chosen, key=rank))
    return chosen


def _apart(chosen: list[Item], train: Sequence[Item], make_filters: MakeFilters) -> list[Item]:
    """Those of `chosen` that are near nothing in `train` and near none of those moved there."""
    arrived = list(train)
    while chosen and arrived:
        clear = _clear_of(chosen, arrived, make_filters)
        kept = {item.id for item in clear}
        arrived = [item for item in chosen if item.id not in kept]
        chosen = clear
    return chosen


def _one(items: Sequence[Item], fixed: list[Item], make_filters: MakeFilters) -> list[Item]:
    """The first record in the draw that is near no other one, as a list; [] if none is."""
    drawn = sorted(items, key=lambda item: (rank(item.id), item.id))
    front, rest = drawn[:FILL_IN_RECORDS], drawn[FILL_IN_RECORDS:]
    candidates = _clear_of(front, fixed + rest, make_filters)
    for item in candidates:
        others = [other for other in front if other.id != item.id]
        if _clear_of([item], others, make_filters):
            return [item]
    return []


def _clear_of(
    items: Sequence[Item], others: Sequence[Item], make_filters: MakeFilters
) -> list[Item]:
    """Those of `items` that are near none of `others`."""
    filters = make_filters()
    for other in others:
        for one in filters:
            one.add(_probe(other))
    return [item for item in items if not any(one.check(_probe(item)) for one in filters)]


def _probe(item: Item) -> Candidate:
    """The item as filters take it: all its text is the instruction, so that all of it counts."""
    return Candidate.plain(item.id, item.text)


class SharedPhrases:
    """Rejects a text that shares more than `threshold` of its n-grams with one added (Jaccard).

    An exact count over an index of n-grams: `filters.minhash` may miss one pair in a hundred, which
    a filter can afford and the border between training and test cannot. All text is compared as
    the instruction. Texts without words are near their equals only.
    """

    name = "shared_phrases"

    def __init__(self, threshold: float = JACCARD_THRESHOLD, ngram: int = NGRAM) -> None:
        self._threshold = threshold
        self._ngram = ngram
        self._ids: list[str] = []
        self._sizes: list[int] = []
        self._with: dict[tuple[str, ...], list[int]] = {}

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember the item's n-grams."""
        found = self._grams(item)
        for gram in found:
            self._with.setdefault(gram, []).append(len(self._ids))
        self._ids.append(item.id)
        self._sizes.append(len(found))

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the first item too similar, or None."""
        found = self._grams(candidate)
        shared = Counter(at for gram in found for at in self._with.get(gram, ()))
        for at, count in shared.items():
            similarity = count / (len(found) + self._sizes[at] - count)
            if similarity > self._threshold:
                return Verdict(
                    candidate_id=candidate.id,
                    reason=self.name,
                    neighbour=self._ids[at],
                    score=similarity,
                )
        return None

    def _grams(self, item: Candidate | SeedTask) -> frozenset[tuple[str, ...]]:
        words = unicode_words(item.instruction) or [item.instruction.strip()]
        return grams(words, self._ngram)


def near_filters() -> list[Filter]:
    """What counts as near: ROUGE-L above 0.7, or more than half of the word 3-grams shared."""
    return [Novelty(ROUGE_THRESHOLD), SharedPhrases()]
