"""Grounding: reject an answer that says what its passage does not.

Three signs, each of which can be counted: few of the answer's words come in the passage
(K-Precision of Adlakha et al. 2024, arXiv 2307.16877, here without the words that the question
gives and without the short ones), a figure comes from nowhere, or the record speaks of "the
passage", which its reader does not see. A wrong answer in the passage's own words passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

from selfinstruct.core.types import Candidate, Passage, SeedTask, Verdict
from selfinstruct.steps.correctness.numbers import Stated, stated
from selfinstruct.steps.words import unicode_words

NOT_GROUNDED = "not_grounded"
FOREIGN_FIGURE = "foreign_figure"
NAMES_PASSAGE = "names_passage"
REASONS = {
    NOT_GROUNDED: "its output has few of the words of the passage it was written from",
    FOREIGN_FIGURE: "its output has a figure that is not in its passage",
    NAMES_PASSAGE: "it speaks of the passage, which its reader does not see",
}

_STEM = 5  # letters that forms of a word have in common, mostly
_FIGURES = 10_000
# Dates, thousands apart by points or spaces, decimals after a comma: as `stated` reads them.
_DATE = re.compile(r"\b(\d{1,4})[./-](\d{1,2})[./-](\d{1,4})\b")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[. '\u00a0\u2009\u2019\u202f]\d{3})+(?!\d)")
_COMMA = re.compile(r"(?<=\d),(?=\d{1,2}(?!\d))")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_IN_WORDS = re.compile(rf"\b({'|'.join(_TENS)})(?:[- ]({'|'.join(_ONES)}))?\b", re.IGNORECASE)
_MARKER = re.compile(r"^[ \t]*(?:[-*\u2022][ \t]+)?\(?\d{1,3}[.)][ \t]+", re.MULTILINE)


class Grounded:
    """Rejects what a passage among the candidate's parents does not bear out.

    Args:
        passages: those of the run. A candidate without one of them as parent is passed over.
        precision: the least share of the output's content words (four letters and more, or not
            ASCII; none that the instruction has) that come in the passage or its title.
        figures: whether a figure written in digits must be in passage, title or instruction, as
            far as it is precise. Marks of list items don't count.
        references: phrases that name the passage, in any case.
    """

    name = "grounded"

    def __init__(
        self,
        passages: Iterable[Passage],
        precision: float = 0.3,
        figures: bool = True,
        references: Sequence[str] = (),
    ) -> None:
        self._passages = {passage.id: passage for passage in passages}
        self._precision = precision
        self._figures = figures
        phrases = "|".join(re.escape(" ".join(phrase.split())) for phrase in references)
        self._references = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)", re.I) if phrases else None
        # A passage's records come one after the other.
        self._known = lru_cache(maxsize=64)(_known)

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that says what is not borne out; its score is the share of words."""
        passage = next(
            (self._passages[one] for one in candidate.parents if one in self._passages), None
        )
        if passage is None:
            return None
        named = self._named(candidate)
        if named:
            return _verdict(candidate, NAMES_PASSAGE, f'it says "{named}"')
        words, figures = self._known(f"{passage.title}\n{passage.text}")
        share = _precision(candidate, words)
        if share < self._precision:
            detail = f"{share:.2f} of its words, under {self._precision:g}, are in {passage.id}"
            return _verdict(candidate, NOT_GROUNDED, detail, share)
        if self._figures and (foreign := _foreign(candidate, figures)):
            return _verdict(candidate, FOREIGN_FIGURE, f"{foreign} is not in {passage.id}", share)
        return None

    def add(self, item: Candidate | SeedTask) -> None:
        """Nothing: a candidate is compared with its passage alone."""

    def _named(self, candidate: Candidate) -> str:
        if self._references is None:
            return ""
        for text in (candidate.instruction, candidate.output):
            if found := self._references.search(" ".join(text.split())):
                return found[0]
        return ""


def _verdict(candidate: Candidate, reason: str, detail: str, score: float | None = None) -> Verdict:
    return Verdict(candidate_id=candidate.id, reason=reason, detail=detail, score=score)


def _known(text: str) -> tuple[frozenset[str], list[Stated]]:
    """The stems and the figures of a text."""
    words = frozenset(word[:_STEM] for word in unicode_words(text))
    return words, _readings(text)


def _readings(text: str) -> list[Stated]:
    """The figures of a text in all the ways in which people write them."""
    found = [*stated(text, _FIGURES), *stated(_plain(text), _FIGURES)]
    for match in _IN_WORDS.finditer(text):
        ones = 1 + _ONES.index(match[2].lower()) if match[2] else 0
        value = 10 * (2 + _TENS.index(match[1].lower())) + ones
        found.append(Stated(Fraction(value), Fraction(0)))
    return found


def _plain(text: str) -> str:
    """`text` with dates apart, and figures of the continent written as English ones."""
    text = _DATE.sub(r"\1 \2 \3", text)
    text = _THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    return _COMMA.sub(".", text)


def _precision(candidate: Candidate, words: frozenset[str]) -> float:
    """The share of the output's content words that are among `words`; 1 where it has none."""
    asked = {word[:_STEM] for word in unicode_words(candidate.instruction)}
    said = [
        word[:_STEM]
        for word in unicode_words(candidate.output)
        if len(word) >= 4 or not word.isascii()
    ]
    new = [stem for stem in said if stem not in asked]
    return sum(stem in words for stem in new) / len(new) if new else 1.0


def _foreign(candidate: Candidate, figures: list[Stated]) -> str:
    """The first figure of the output that neither `figures` nor the instruction have, or ""."""
    known = {abs(one.value) for one in figures}
    known |= {abs(one.value) for one in _readings(candidate.instruction)}
    output = _MARKER.sub("", candidate.output)
    found = _first_foreign(output, known)
    # "1.500" may be one and a half or fifteen hundred.
    return found if found and _first_foreign(_plain(output), known) else ""


def _first_foreign(text: str, known: set[Fraction]) -> str:
    for one in stated(text, _FIGURES):
        value = abs(one.value)
        in_words = not one.slack  # "two ways": a count of what is there
        if in_words or value in known:
            continue
        if not any(Stated(value, one.slack).is_near(other) for other in known):
            return _written(value)
    return ""


def _written(value: Fraction) -> str:
    return f"{value.numerator:,}" if value.denominator == 1 else f"{float(value):g}"
