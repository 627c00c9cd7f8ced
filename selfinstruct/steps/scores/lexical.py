"""Scores that need no model: lengths, variety of words, readability.

They say how a text is written, nothing of whether it is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.words import count_words, unicode_words

Task = Candidate | SeedTask

MTLD_LEVEL = 0.72  # type-token ratio at which a factor ends (McCarthy and Jarvis 2010)
MAX_CHARACTERS = 100_000
_SENTENCE = re.compile(r"[.!?\u3002\uff01\uff1f\u0964\u061f]+(?=\s|$|[\u3040-\u9fff])|\n+")
_VOWELS = re.compile(r"[aeiouy]+")


def sentences(text: str) -> int:
    """Sentences and lines with at least one word."""
    parts = _SENTENCE.split(text[:MAX_CHARACTERS])
    return sum(1 for part in parts if unicode_words(part))


def type_token_ratio(text: str) -> float | None:
    """Different words per word; None for a text without words. It falls with a text's length."""
    words = unicode_words(text[:MAX_CHARACTERS])
    return len(set(words)) / len(words) if words else None


def mtld(text: str) -> float | None:
    """Measure of textual lexical diversity (McCarthy and Jarvis 2010), forwards and backwards.

    The mean length of stretches of words whose type-token ratio stays above 0.72. Unlike the ratio
    itself it hardly depends on the text's length. None for a text without words.
    """
    words = unicode_words(text[:MAX_CHARACTERS])
    if not words:
        return None
    return (_stretch(words) + _stretch(words[::-1])) / 2


def _stretch(words: list[str]) -> float:
    factors, seen, count = 0.0, set[str](), 0
    for word in words:
        seen.add(word)
        count += 1
        if len(seen) / count <= MTLD_LEVEL:
            factors += 1
            seen, count = set(), 0
    if count:
        factors += (1 - len(seen) / count) / (1 - MTLD_LEVEL)
    return len(words) / factors if factors else float(len(words))


def reading_ease(text: str) -> float | None:
    """Flesch's reading ease (1948), for English: 100 is very easy, 0 very hard.

    Syllables are counted as groups of vowels, a silent e left out. None without a word of a-z.
    """
    words = [word for word in unicode_words(text[:MAX_CHARACTERS]) if word.isascii()]
    words = [word for word in words if word.isalpha()]
    if not words:
        return None
    syllables = sum(_syllables(word) for word in words)
    return 206.835 - 1.015 * len(words) / max(1, sentences(text)) - 84.6 * syllables / len(words)


def _syllables(word: str) -> int:
    groups = len(_VOWELS.findall(word))
    silent = word.endswith("e") and not word.endswith("le") and groups > 1
    return max(1, groups - silent)


LEXICAL: dict[str, Callable[[Task], float | None]] = {
    "instruction_words": lambda task: float(count_words(task.instruction)),
    "input_words": lambda task: float(count_words(task.input)),
    "output_words": lambda task: float(count_words(task.output)),
    "output_sentences": lambda task: float(sentences(task.output)),
    "output_ttr": lambda task: type_token_ratio(task.output),
    "output_mtld": lambda task: mtld(task.output),
    "output_reading_ease": lambda task: reading_ease(task.output),
}
"""Each score by its name in a recipe."""
