"""What a prompt asks for, and a reply in that form, as a function of the prompt and a seed alone.

The forms are those of the strategies: Alpaca's numbered list, Self-Instruct's numbered
instructions, one task as a JSON object, questions about a passage, a raw prompt that a user's turn
continues, and a plain question. A share of the records is bad on purpose, as a real teacher's are:
copies, near-duplicates, empty outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from selfinstruct.testing import grammar, passages
from selfinstruct.testing.grammar import Task

_ALPACA = re.compile(r"(\d+)\. Instruction:\s*$")
_SELF_INSTRUCT = re.compile(r"(?:(Task )|^)(\d+)[.:]\s*\Z", re.MULTILINE)
_TASKS = re.compile(r"tasks (\d+) to (\d+)")
_WANTS_LABELS = '"Output:"'
_UP_TO = re.compile(r"(?:set of|list of|series of) (\d+)", re.IGNORECASE)
_SHOWN = (
    re.compile(r"^\d+\. Instruction: (.+)$", re.MULTILINE),
    re.compile(r'"instruction": ?"((?:[^"\\]|\\.)+)"'),
    re.compile(r"^(?:Task )?\d+[.:] (.{12,})$", re.MULTILINE),
)
_JSON_KEY = '"instruction"'
_WORD = re.compile(r"[A-Za-z]{5,}")

_WANTS_SCORE = '{"score":'

REFUSAL = "I'm sorry, but I can't help with that."
# A teacher's favourites: it comes back to them again and again, slightly reworded.
_FAVOURITES = tuple(grammar.task(Random(f"favourite {i}")) for i in range(64))


class Ask(NamedTuple):
    """A request reduced to what a reply depends on."""

    text: str
    """The last user message, or the raw prompt."""
    raw: bool = False
    """Whether it is a completions prompt."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema the reply must follow."""


class Share(NamedTuple):
    """How much of what is written is bad."""

    bad: float = 0.12
    """Records that are copies, near-duplicates, empty or out of a text model's reach."""
    cut: float = 0.02
    """Replies that end in the middle because of their length."""
    refusals: float = 0.01
    """Replies that decline in words."""


class Draft(NamedTuple):
    """A reply's text, and whether it was cut short."""

    text: str
    cut: bool = False


def write(ask: Ask, rng: Random, share: Share) -> Draft:
    """The reply to `ask`; every draw comes from `rng`."""
    if rng.random() < share.refusals:
        return Draft(REFUSAL)
    text = _full_text(ask, rng, share)
    if rng.random() < share.cut and len(text) > 40:
        return Draft(text[: int(len(text) * rng.uniform(0.4, 0.9))], cut=True)
    return Draft(text)


def fixed(size: int, seed: int) -> str:
    """The first `size` bytes of an Alpaca list that continues after its third task."""
    rng, share = Random(f"fixed {seed}"), Share(0.0, 0.0, 0.0)
    text = _alpaca(4, 4 + size // 100, rng, share, ())
    return text[:size]


def _full_text(ask: Ask, rng: Random, share: Share) -> str:
    text = ask.text
    shown = _shown(text)
    if _WANTS_SCORE in text:
        return _score(rng, ask.schema)
    if passages.asks_about_passage(text):
        return passages.questions(text, rng, share.bad)
    if ask.schema is not None:
        return _as_json(_record(rng, share, shown), ask.schema)
    if match := _ALPACA.search(text):
        return _alpaca(int(match[1]), _last_number(text, int(match[1]) + 16), rng, share, shown)
    if match := _SELF_INSTRUCT.search(text) or _TASKS.search(text):
        asked = match.re is _TASKS
        first = int(match[1] if asked else match[2])
        last = int(match[2]) if asked else _last_number(text, first + 7)
        tasks = [_record(rng, share, shown).instruction for _ in range(first, last + 1)]
        return _numbered(first, tasks, continues=not asked and match[1] is None)
    if ask.raw:
        return _record(rng, share, shown).instruction
    if _JSON_KEY in text:
        return _as_json(_record(rng, share, shown), {})
    if _WANTS_LABELS in text:
        given = f"Input: {grammar.passage(rng)}\n" if rng.random() < 0.4 else ""
        return f"{given}Output: {_answer(text, rng)}"
    return _answer(text, rng)


def _score(rng: Random, schema: Mapping[str, Any] | None) -> str:
    """A judge's rating; without a schema in one of the forms that models fall into."""
    score = rng.randint(1, 5)
    if schema is not None:
        return json.dumps({"score": score})
    forms = (
        f'```json\n{{"score": {score}}}\n```',
        f"Score: {score}/5\nThe answer is to the point.",
        f"{score}",
        "The answer has 3 sentences and 12 words.",
    )
    return rng.choice(forms)


def _shown(text: str) -> tuple[str, ...]:
    """The instructions of the examples in a prompt."""
    for pattern in _SHOWN:
        if found := pattern.findall(text):
            return tuple(instruction.strip() for instruction in found)
    return ()


def _last_number(text: str, otherwise: int) -> int:
    match = _UP_TO.search(text)
    return int(match[1]) if match else otherwise


def _record(rng: Random, share: Share, shown: tuple[str, ...]) -> Task:
    """A task, bad in one of several ways with the probability `share.bad`."""
    if rng.random() >= share.bad:
        return grammar.task(rng)
    kind = rng.randrange(5)
    if kind == 0 and shown:
        return grammar.task(rng)._replace(instruction=rng.choice(shown))
    if kind == 1:
        return grammar.task(rng)._replace(output="")
    if kind == 2:
        thing = grammar.thing(rng)
        return Task(f"Draw a picture of a {thing}.", "", f"Here is a picture of a {thing}.")
    if kind == 3:
        return Task("Continue.", "", grammar.sentence(rng))
    return _reworded(rng.choice(_FAVOURITES), rng)


def _reworded(task: Task, rng: Random) -> Task:
    words = task.instruction.split(" ")
    words[rng.randrange(len(words))] = rng.choice(("quite", "very", "rather", "truly"))
    return task._replace(instruction=" ".join(words))


def _alpaca(first: int, last: int, rng: Random, share: Share, shown: tuple[str, ...]) -> str:
    """The list from the number `first`, whose "N. Instruction:" the prompt already wrote."""
    blocks = []
    for number in range(first, max(first, last) + 1):
        task = _record(rng, share, shown)
        head = "" if number == first else f"{number}. Instruction:"
        blocks.append(
            f"{head} {task.instruction}\n{number}. Input:\n{task.input or '<noinput>'}\n"
            f"{number}. Output:\n{task.output}\n"
        )
    return "###\n".join(blocks)


def _numbered(first: int, tasks: list[str], *, continues: bool) -> str:
    """`tasks` one a line; `continues` a list whose first number the prompt already wrote."""
    lines = [f"{first + i}. {text}" for i, text in enumerate(tasks)]
    if continues and lines:
        lines[0] = f" {tasks[0]}"
    return "\n".join(lines)


def _as_json(task: Task, schema: Mapping[str, Any]) -> str:
    fields = schema.get("properties") or {"instruction": {}, "input": {}, "output": {}}
    return json.dumps(
        {
            name: field["enum"][0] if "enum" in field else getattr(task, name, task.instruction)
            for name, field in fields.items()
        }
    )


def _answer(question: str, rng: Random) -> str:
    """A paragraph that takes up words of the question."""
    words = _WORD.findall(question[-400:]) or ["matter"]
    about = " ".join(dict.fromkeys(rng.choice(words).lower() for _ in range(2)))
    return grammar.paragraph(rng, about, rng.randint(1, 4))
