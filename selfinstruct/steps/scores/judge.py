"""A judge's scores: what is asked of a teacher, and how a number is read out of its reply.

- `complexity` and `quality`, 1 to 6, as DEITA rates instructions and answers (Liu et al. 2024,
  arXiv 2312.15685), but each record by itself; their product is DEITA's score.
- `rubric`, 0 to 5, the accuracy that AlpaGasus asks for (Chen et al. 2023, arXiv 2307.08701).
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Candidate, Request, Sampling, SeedTask
from selfinstruct.steps.prompts import Prompt, load_prompt

Task = Candidate | SeedTask

NO_SLOT = -1  # judged records are of no slot of the run
MAX_REPLY = 20_000  # characters of a reply that are looked at
RETRY_TEMPERATURE = 0.7  # a judge that answers the same again would fail again
_OBJECT = re.compile(r"\{[^{}]*\}")
_NUMBER = r"(\d{1,3}(?:\.\d+)?)"
_NAMED = re.compile(
    r"\b(?:score|rating|grade)\b[\"'*_\s]*(?:\([^)]{0,40}\))?[\"'*_\s]*(?:is|of|[:=])?[\"'*_\s]*"
    + _NUMBER,
    re.IGNORECASE,
)
_BARE = re.compile(rf"[\s*_`\"']*{_NUMBER}\s*(?:/\s*\d{{1,3}})?[\s*_`\"'.]*\Z")


class Question(NamedTuple):
    """What a judge is asked for one score: its prompt, and the values it may give."""

    prompt: str
    needs: frozenset[str]
    allowed: tuple[float, ...]


_WHOLE = frozenset({"instruction", "input", "output"})
QUESTIONS = {
    "complexity": Question(
        "prompts/judge_complexity.txt", frozenset({"instruction", "input"}), (1, 2, 3, 4, 5, 6)
    ),
    "quality": Question("prompts/judge_quality.txt", _WHOLE, (1, 2, 3, 4, 5, 6)),
    "rubric": Question(
        "prompts/judge_rubric.txt", _WHOLE, (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)
    ),
}
"""By score."""
# Scores that are made of others: DEITA multiplies complexity and quality.
PRODUCTS = {"deita": ("complexity", "quality")}


def asked_for(names: list[str]) -> list[str]:
    """The questions behind the scores `names`, each once."""
    found = [part for name in names for part in PRODUCTS.get(name, (name,))]
    return [name for name in dict.fromkeys(found) if name in QUESTIONS]


def prompt_tag(name: str) -> str:
    """The version and hash of a question's prompt. Raises `RecipeError` for a broken file."""
    question = QUESTIONS[name]
    return load_prompt(question.prompt, question.needs).tag


class Judge:
    """Writes the requests for one score and reads their replies.

    Args:
        name: of the score, in `QUESTIONS`.
        teacher, model: who is asked.
        sampling: of a request; its `schema` is set here.
        structured: whether the teacher follows a JSON schema.

    Raises `RecipeError` for a broken prompt file.
    """

    def __init__(
        self, name: str, *, teacher: str, model: str, sampling: Sampling, structured: bool
    ) -> None:
        self.name = name
        self._question = QUESTIONS[name]
        self._prompt: Prompt = load_prompt(self._question.prompt, self._question.needs)
        self._teacher = teacher
        self._model = model
        self._sampling = sampling
        if structured:
            self._sampling = msgspec.structs.replace(sampling, schema=self._schema())

    def request(self, task: Task, attempt: int = 0) -> Request:
        """The request for a record's score; another `attempt` is another request."""
        sampling = self._sampling
        if attempt:
            temperature = sampling.temperature or RETRY_TEMPERATURE
            sampling = msgspec.structs.replace(sampling, temperature=temperature, seed=attempt)
        values = {name: getattr(task, name) for name in self._question.needs}
        return make_request(
            teacher=self._teacher,
            model=self._model,
            sampling=sampling,
            messages=self._prompt.render(**values),
            prompt_version=self._prompt.tag,
            sample=attempt,
            slot=NO_SLOT,
            strategy=f"judge:{self.name}",
            parents=(task.id,),
        )

    def read(self, reply: str) -> float | None:
        """The score in a reply; None where there is none, or one that was not on offer."""
        value = number_in(reply[:MAX_REPLY])
        return value if value in self._question.allowed else None

    def _schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"score": {"type": "number", "enum": list(self._question.allowed)}},
            "required": ["score"],
            "additionalProperties": False,
        }


def number_in(reply: str) -> float | None:
    """The number a judge gave: in a JSON object, after the word score, or alone on a line.

    A number in the middle of a sentence is none: it may count anything.
    """
    for found in _OBJECT.findall(reply):
        value = _in_object(found)
        if value is not None:
            return value
    named = _NAMED.search(reply)
    if named is not None:
        return float(named[1])
    lines = [line for line in reply.strip().splitlines() if line.strip()]
    for line in lines[:1] + lines[-1:]:
        alone = _BARE.match(line)
        if alone is not None:
            return float(alone[1])
    return None


def _in_object(text: str) -> float | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    value = found.get("score", found.get("rating"))
    if isinstance(value, str):
        alone = _BARE.match(value)
        return None if alone is None else float(alone[1])
    return float(value) if isinstance(value, (int, float)) and value is not True else None
