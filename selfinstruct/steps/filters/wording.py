"""Wording: Alpaca's rules on how an instruction is worded, as data that a user edits.

The rules come from `generate_instruction.py` of Stanford Alpaca (Taori et al., 2023). They are word
lists and switches; no pattern of the user's is run, so the time is linear in the instruction.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.filters.wording_rules import (
    ForbiddenStarts,
    ForbiddenWords,
    Rule,
    WordingRules,
)
from selfinstruct.steps.words import mark_class, normal

REASONS = {
    "forbidden_word": "its instruction holds a word of the rules' list",
    "forbidden_start": "its instruction starts as the rules forbid",
    "starts_with_punctuation": "its instruction starts with punctuation",
    "starts_with_non_ascii": "its instruction starts with a character outside ASCII",
}


class Wording:
    """Rejects instructions by their wording, the first rule that applies.

    Args:
        rules: see `wording_rules.load_rules`.
    """

    name = "wording"

    def __init__(self, rules: WordingRules) -> None:
        self._rules = [(rule, _matcher(rule)) for rule in rules.rules]

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict with the rule's own detail and what it found."""
        instruction = candidate.instruction.lstrip()
        for rule, match in self._rules:
            found = match(instruction)
            if found:
                detail = f"{rule.detail} ({found!r})"
                return Verdict(candidate_id=candidate.id, reason=rule.kind, detail=detail)
        return None

    def add(self, item: Candidate | SeedTask) -> None:
        """Nothing: the rules look at one candidate alone."""


def _matcher(rule: Rule) -> Callable[[str], str]:
    """What the rule finds in an instruction that has no leading spaces; "" for nothing."""
    if isinstance(rule, ForbiddenWords):
        return _finds_words(rule)
    if isinstance(rule, ForbiddenStarts):
        return _finds_starts(rule)
    if rule.kind == "starts_with_punctuation":
        return lambda text: text[:1] if text[:1] in string.punctuation else ""
    return lambda text: "" if text[:1].isascii() else text[:1]


def _finds_words(rule: ForbiddenWords) -> Callable[[str], str]:
    """As Alpaca's `find_word_in_string`: a word's ends are where letters, digits and _ end."""
    any_word = "|".join(re.escape(" ".join(normal(word).split())) for word in rule.words)
    inner = rf"\w{mark_class()}"
    pattern = rf"(?<![{inner}])(?:{any_word})(?![{inner}])" if rule.whole else any_word
    search = re.compile(pattern, re.IGNORECASE).search

    def find_word(text: str) -> str:
        found = search(" ".join(normal(text).split()))
        return found[0] if found else ""

    return find_word


def _finds_starts(rule: ForbiddenStarts) -> Callable[[str], str]:
    fold = str.casefold if rule.any_case else str
    starts = [(fold(normal(start)), start) for start in rule.starts]

    def find_start(text: str) -> str:
        # A start is short; so is what has to be looked at.
        begin = fold(normal(text[:1000]))
        return next((start for folded, start in starts if begin.startswith(folded)), "")

    return find_start
