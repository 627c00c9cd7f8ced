"""The filters of a recipe, and the judge that asks them in order.

The order is part of what a reason means: the first filter that rejects gives it. Shape of the
instruction, wording, copies of the prompt, output, grounding, rules, correctness, conflicts,
novelty, near-duplicates, meaning: from what one candidate shows by itself to what it is next to
everything kept, and from cheap to dear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Book, Candidate, Filter, Passage, SeedTask, Verdict
from selfinstruct.steps.filters import (
    conflicting,
    copied,
    grounded,
    minhash,
    novelty,
    rules,
    semantic,
    shape,
    wording,
)
from selfinstruct.steps.filters.wording_rules import load_rules
from selfinstruct.steps.model_files import model_mark
from selfinstruct.steps.rules.phrases import load_phrases

REASONS: dict[str, str] = {
    **shape.REASONS,
    **wording.REASONS,
    **copied.REASONS,
    **grounded.REASONS,
    **rules.REASONS,
    **conflicting.REASONS,
    **novelty.REASONS,
    **minhash.REASONS,
    **semantic.REASONS,
}
"""Every reason a candidate can be rejected for, with one line that explains it."""

# Filters that need the instruction and its parents only: they may run before an answer is paid for.
SCREENING = frozenset({"shape", "wording", "copied"})


def build_filters(
    config: FiltersConfig, sketches: Book | None = None, passages: Sequence[Passage] = ()
) -> list[Filter]:
    """The filters that `config` asks for, in the order they are tried.

    `sketches` keeps what is dear to work out from a text alone, over sessions. `passages` are those
    that candidates may have been written from.

    Raises:
        RecipeError: the wording rules cannot be read, or a threshold cannot be served.
    """
    rouge = config.rouge
    filters: list[Filter] = [shape.InstructionShape(config.min_words, config.max_words)]
    if config.wording.enabled:
        filters.append(wording.Wording(load_rules(config.wording.rules)))
    if config.copied:
        filters.append(copied.Copied(rouge.threshold, rouge.field, rouge.tokenizer))
    filters.append(shape.OutputShape())
    if config.grounded.enabled and passages:
        by = config.grounded
        filters.append(grounded.Grounded(passages, by.precision, by.figures, by.references))
    filters.append(rules.build_rules(config.rules))
    filters.append(rules.build_correctness(config.correctness))
    if config.conflicting:
        filters.append(conflicting.Conflicting())
    if rouge.enabled:
        filters.append(novelty.Novelty(rouge.threshold, rouge.field, rouge.tokenizer))
    if config.minhash.enabled:
        near = config.minhash
        filters.append(minhash.NearDuplicate(near.threshold, near.ngram, sketches))
    if config.semantic.enabled:
        like = config.semantic
        filters.append(semantic.Semantic(like.threshold, like.model, sketches))
    return filters


def rule_files(config: FiltersConfig) -> list[Any]:
    """What the files say that `config` names, as built-in types: verdicts depend on it.

    Raises:
        RecipeError: a file cannot be read.
    """
    wording_rules = load_rules(config.wording.rules) if config.wording.enabled else None
    files = [wording_rules, load_phrases(config.rules.phrases)]
    said: list[Any] = [file.model_dump() if file is not None else None for file in files]
    if config.semantic.enabled and (mark := model_mark(config.semantic.model)):
        said.append(mark)
    return said


class Judge:
    """Decides on candidates one after the other; each decision depends on what was kept before.

    Args:
        filters: in the order they are tried.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        self._screening = tuple(one for one in filters if one.name in SCREENING)
        self._flagging = tuple(one for one in filters if isinstance(one, rules.Rules))

    def prime(self, seeds: Iterable[SeedTask]) -> None:
        """Add the seed tasks, before the first candidate."""
        for seed in seeds:
            self.add(seed)

    def add(self, item: Candidate | SeedTask) -> None:
        """Let every filter remember a seed task, or a candidate kept in another session."""
        for one in self._filters:
            one.add(item)

    def screen(self, candidate: Candidate) -> Verdict | None:
        """The verdict on a candidate without output so far, or None; changes nothing.

        It depends on the candidate and its parents alone, so it is the same at any time after the
        parents were added, and `judge` would come to it too.
        """
        return _first_verdict(self._screening, candidate)

    def judge(self, candidate: Candidate) -> Verdict:
        """The verdict on a candidate; a kept one is added, and has its flags."""
        verdict = _first_verdict(self._filters, candidate)
        if verdict is None:
            self.add(candidate)
            found = [flag for one in self._flagging for flag in one.flags(candidate)]
            verdict = Verdict(
                candidate_id=candidate.id,
                flags=tuple(rule for rule, _ in found),
                notes=tuple(note for _, note in found),
            )
        return verdict


def _first_verdict(filters: Iterable[Filter], candidate: Candidate) -> Verdict | None:
    for one in filters:
        verdict = one.check(candidate)
        if verdict is not None:
            return verdict
    return None
