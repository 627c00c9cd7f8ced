"""Shape: what is wrong with a candidate whatever else was kept.

Two filters, because an instruction may be judged before an answer to it is paid for: what is wrong
with the instruction comes first, what is wrong with the output after the other instruction rules.
"""

from __future__ import annotations

import re

from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.words import count_words, unicode_words

INVALID_CHARACTERS = "invalid_characters"
EMPTY_INSTRUCTION = "empty_instruction"
TOO_SHORT = "instruction_too_short"
TOO_LONG = "instruction_too_long"
EMPTY_OUTPUT = "empty_output"
OUTPUT_EQUALS_INPUT = "output_equals_input"
OUTPUT_EQUALS_INSTRUCTION = "output_equals_instruction"

# Found before judgement, by the strategies' parsers and by the call that answers.
DEFECTS = {
    "unparseable": "nothing in the reply looks like a task",
    "incomplete": "the reply was cut off inside this task",
    "malformed": "the task has no output, or its labels are out of order",
    "nothing_to_ask": "the teacher found nothing to ask in its passage",
    "unanswered": "the call that was to answer it failed for good",
    "refused": "the teacher declined to answer it",
    "not_answered": "it was screened out before, so its answer was never paid for",
}
REASONS = {
    **DEFECTS,
    INVALID_CHARACTERS: "it holds a null or half a surrogate pair, which no file can store",
    EMPTY_INSTRUCTION: "it has no instruction",
    TOO_SHORT: "its instruction has too few words",
    TOO_LONG: "its instruction has too many words",
    EMPTY_OUTPUT: "it has no output",
    OUTPUT_EQUALS_INPUT: "its output repeats its input",
    OUTPUT_EQUALS_INSTRUCTION: "its output repeats its instruction",
}

CHARACTERS_PER_WORD = 100  # on average, above which an instruction is too long whatever its words
_INVALID = re.compile("[\0\ud800-\udfff]")


class InstructionShape:
    """Rejects defects, unstorable text, and instructions that are empty, too short or too long.

    Args:
        min_words, max_words: bounds of the instruction's words as `words.count_words` counts them.
            An instruction without any letter or digit is too short for every `min_words` above 0.
    """

    name = "shape"

    def __init__(self, min_words: int = 3, max_words: int = 150) -> None:
        self._min_words = min_words
        self._max_words = max_words

    def check(self, candidate: Candidate) -> Verdict | None:
        """The verdict on the candidate's defect, characters and instruction."""
        if candidate.defect:
            detail = DEFECTS.get(candidate.defect, "found while reading the reply")
            return Verdict(candidate_id=candidate.id, reason=candidate.defect, detail=detail)
        for part in ("instruction", "input", "output"):
            found = _INVALID.search(getattr(candidate, part))
            if found:
                detail = f"U+{ord(found[0]):04X} at character {found.start() + 1} of the {part}"
                return Verdict(candidate_id=candidate.id, reason=INVALID_CHARACTERS, detail=detail)
        return self._length(candidate)

    def add(self, item: Candidate | SeedTask) -> None:
        """Nothing: the rules look at one candidate alone."""

    def _length(self, candidate: Candidate) -> Verdict | None:
        reason, detail = "", ""
        text = candidate.instruction.strip()
        longest = self._max_words * CHARACTERS_PER_WORD
        if not text:
            reason, detail = EMPTY_INSTRUCTION, "nothing but spaces"
        elif len(text) > longest:
            reason, detail = TOO_LONG, f"{len(text)} characters, at most {longest}"
        elif (words := count_words(text)) > self._max_words:
            reason, detail = TOO_LONG, f"{words} words, at most {self._max_words}"
        elif words < self._min_words:
            reason, detail = TOO_SHORT, f"{words} words, at least {self._min_words}"
        elif self._min_words and not unicode_words(text):
            reason, detail = TOO_SHORT, "no letter and no digit"
        return Verdict(candidate_id=candidate.id, reason=reason, detail=detail) if reason else None


class OutputShape:
    """Rejects an empty output, and one that repeats the input or the instruction."""

    name = "output"

    def check(self, candidate: Candidate) -> Verdict | None:
        """The verdict on the output; outer spaces don't count, inner ones may be the task."""
        output = candidate.output.strip()
        if not output:
            reason, detail = EMPTY_OUTPUT, "nothing but spaces"
        elif output == candidate.input.strip():
            reason, detail = OUTPUT_EQUALS_INPUT, "the same text"
        elif output == candidate.instruction.strip():
            reason, detail = OUTPUT_EQUALS_INSTRUCTION, "the same text"
        else:
            return None
        return Verdict(candidate_id=candidate.id, reason=reason, detail=detail)

    def add(self, item: Candidate | SeedTask) -> None:
        """Nothing: the rules look at one candidate alone."""
