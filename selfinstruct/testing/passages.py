"""Replies to a prompt that asks about a passage: questions whose answers are its sentences."""

from __future__ import annotations

import json
import re
from random import Random

_PROMPT = re.compile(
    r"The passage stands under: (?P<title>.*?)\n\n(?P<passage>.*?)\n\nExamples of the manner"
    r".*\nWrite (?P<count>\d+) new questions",
    re.DOTALL,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\w{4,}")
_OPENINGS = (
    "What should I know about",
    "How does it work with",
    "Can you explain",
    "What applies to",
    "A customer asks about",
)


def asks_about_passage(text: str) -> bool:
    """Whether a prompt is one of the strategy documents."""
    return _PROMPT.search(text) is not None


def questions(text: str, rng: Random, bad: float) -> str:
    """As many questions as the prompt asks for, as JSON.

    A share `bad` of them has an answer that its passage does not bear out, or names the passage.
    """
    found = _PROMPT.search(text)
    if found is None:
        raise ValueError("the prompt asks about no passage")
    sentences = [one for one in _SENTENCE.split(found["passage"]) if _WORD.search(one)]
    tasks = []
    for _ in range(int(found["count"])):
        sentence = rng.choice(sentences) if sentences else found["passage"]
        words = _WORD.findall(sentence) or ["this"]
        topic = " and ".join(dict.fromkeys(rng.choice(words) for _ in range(3)))
        answer = sentence
        if rng.random() < bad:
            answer = rng.choice(
                (f"The passage says: {sentence}", f"{sentence} It has been so since 1387.")
            )
        question = f"{rng.choice(_OPENINGS)} {topic} ({found['title']})?"
        tasks.append({"instruction": question, "output": answer})
    return json.dumps({"tasks": tasks})
