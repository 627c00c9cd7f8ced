"""Copies: reject a candidate that repeats an example of its own prompt.

Small teachers echo what they are shown. Novelty would reject most of it too; this filter comes
before it, so that the report says how much of what was paid for was an echo.
"""

from __future__ import annotations

from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.filters.novelty import Field, TokenizerName, compared_text
from selfinstruct.steps.filters.rouge import MAX_WORDS, rouge_l, show
from selfinstruct.steps.words import TOKENIZERS, count_words, same_wording

COPIED = "copied_from_prompt"
REASONS = {COPIED: "it repeats one of the examples that its own prompt showed"}

MIN_OUTPUT_WORDS = 5  # shorter outputs ("Yes", "Positive") are equal by chance


class Copied:
    """Rejects what repeats one of `candidate.parents`, looked up in what was added.

    A copy has the wording of a parent's instruction, or is above `threshold` near it by ROUGE-L, or
    has both input and output of a parent, or an output of `MIN_OUTPUT_WORDS` words and more that is
    a parent's. A parent that was never added is passed over.

    Args:
        threshold, field, tokenizer: as for `novelty.Novelty`. With "instruction+input" both must
            be alike.
    """

    name = "copied"

    def __init__(
        self,
        threshold: float = 0.7,
        field: Field = "instruction",
        tokenizer: TokenizerName = "unicode",
    ) -> None:
        self._threshold = threshold
        self._field = field
        self._words = TOKENIZERS[tokenizer]
        self._items: dict[str, Candidate | SeedTask] = {}

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the first parent copied, with the F1 where that decided."""
        text = compared_text(candidate, self._field)
        wording, words = same_wording(text), self._words(text)[:MAX_WORDS]
        for parent in candidate.parents:
            item = self._items.get(parent)
            if item is None:
                continue
            score: float | None = None
            detail = self._same(candidate, item, wording)
            if not detail:
                other = self._words(compared_text(item, self._field))[:MAX_WORDS]
                score = rouge_l(words, other)
                if score <= self._threshold:
                    continue
                detail = f"ROUGE-L {show(score, self._threshold)}, over {self._threshold:g}"
            return Verdict(
                candidate_id=candidate.id,
                reason=COPIED,
                detail=f"{detail}, of example {parent}",
                neighbour=parent,
                score=score,
            )
        return None

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate: each may be shown in a later prompt."""
        self._items[item.id] = item

    def _same(self, candidate: Candidate, item: Candidate | SeedTask, wording: str) -> str:
        """What of `item` the candidate repeats word for word, or nothing."""
        if wording == same_wording(compared_text(item, self._field)):
            return f"the same {self._field}"
        output = candidate.output.strip()
        if not output or output != item.output.strip():
            return ""
        if candidate.input.strip() and candidate.input.strip() == item.input.strip():
            return "the same input and output"
        if count_words(candidate.output) >= MIN_OUTPUT_WORDS:
            return "the same output"
        return ""
