"""Questions and answers from a passage of a document, as one JSON object a reply.

Each slot has a passage of its own, and every passage has had its turn before any comes again. From
its second turn on the prompt says what was asked about it already. Examples show the manner that is
wanted; they may be none.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.types import Candidate, Completion, Request, Sampling
from selfinstruct.steps.prompts import load_prompt
from selfinstruct.steps.strategies.parsing import (
    INCOMPLETE,
    MALFORMED,
    NOTHING_TO_ASK,
    UNPARSEABLE,
    candidate,
    clean_input,
    share_cost,
    whole_reply,
)
from selfinstruct.steps.strategies.shapes import Draft, Example, PoolView

PROMPT = "prompts/documents.txt"
PLACES = frozenset({"title", "passage", "count", "examples", "asked"})
DEFAULT_EXAMPLES, DEFAULT_MACHINE = 2, 0
ASKED = 20  # questions a prompt says to be there already
NONE = "(none)"
_TASK: dict[str, Any] = {
    "type": "object",
    "properties": {"instruction": {"type": "string"}, "output": {"type": "string"}},
    "required": ["instruction", "output"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"tasks": {"type": "array", "items": _TASK}},
    "required": ["tasks"],
    "additionalProperties": False,
}
# Other words that models use for the two keys where nothing holds them to the schema.
_KEYS = {"instruction": ("instruction", "question"), "output": ("output", "answer")}
_OPENING = re.compile(r"\{\s*\"")
_TRIES = 200  # places of a broken reply where an object may begin
_DECODER = json.JSONDecoder(strict=False)  # line ends in a text are often written as they are


class Documents:
    """Some questions about a passage, with their answers.

    Args:
        prompt: a prompt file with the places title, passage, count, examples and asked.
        sampling: the parameters of every call.
        examples: tasks shown, as JSON lines.
        machine: how many of them may be machine-written.
        questions: how many to ask for.
        structured: whether to send the schema; the prompt asks for the same form in words.
    """

    name = "documents"
    two_step = False

    def __init__(
        self,
        prompt: str | Path,
        sampling: Sampling,
        examples: int,
        machine: int,
        questions: int,
        structured: bool = True,
    ) -> None:
        self._prompt = load_prompt(prompt, PLACES)
        self._sampling = (
            msgspec.structs.replace(sampling, schema=SCHEMA) if structured else sampling
        )
        self._examples = examples
        self._machine = machine
        self.tasks = questions

    def draw(self, view: PoolView, rng: random.Random) -> Draft:
        """The slot's passage with examples, and what was asked about it before."""
        passage = view.passage()
        shown = view.draw(rng, self._examples - self._machine, self._machine)
        if view.most is not None:
            shown = shown[: view.most - 1]  # the passage counts as one
        asked = view.asked(passage.id, ASKED) if view.most is None else []
        return Draft(
            messages=self._prompt.render(
                title=passage.title,
                passage=passage.text,
                count=str(self.tasks),
                examples="\n".join(_show(example) for example in shown) or NONE,
                asked="\n".join(f"- {one.instruction}" for one in asked) or NONE,
            ),
            sampling=self._sampling,
            prompt_version=self._prompt.tag,
            parents=(passage.id, *(example.id for example in shown)),
        )

    def parse(self, request: Request, completion: Completion) -> list[Candidate]:
        """The tasks of the reply, also from inside a code block or out of one that was cut."""
        tasks, whole = _tasks(completion.text)
        cut = completion.finish == "length" and not whole
        if not tasks:
            defect = INCOMPLETE if cut else NOTHING_TO_ASK if whole else UNPARSEABLE
            return [whole_reply(request, completion, defect)]
        found = [_candidate(request, completion, n, task) for n, task in enumerate(tasks)]
        if cut:
            found.append(candidate(request, completion, len(found), defect=INCOMPLETE))
        return share_cost(found, completion.cost)

    def answer(self, candidate: Candidate) -> Draft:
        """Not a two-step strategy."""
        raise TypeError("documents writes whole tasks")

    def finish(self, candidate: Candidate, request: Request, completion: Completion) -> Candidate:
        """Not a two-step strategy."""
        raise TypeError("documents writes whole tasks")


def _show(example: Example) -> str:
    task = {"instruction": example.instruction, "output": example.output}
    if example.input:
        task["instruction"] += f"\n{example.input}"
    return json.dumps(task, ensure_ascii=False)


def _candidate(
    request: Request, completion: Completion, index: int, task: Mapping[str, Any]
) -> Candidate:
    fields = {
        name: next((task[key] for key in keys if key in task), None) for name, keys in _KEYS.items()
    }
    given = task.get("input")
    texts = [*fields.values(), given if isinstance(given, str) else ""]
    whole = all(isinstance(text, str) and text == _storable(text) for text in texts)
    return candidate(
        request,
        completion,
        index,
        instruction=_storable(str(fields["instruction"] or "")).strip(),
        input=clean_input(_storable(given)) if isinstance(given, str) else "",
        output=_storable(str(fields["output"] or "")).strip(),
        defect="" if whole else MALFORMED,
    )


def _storable(text: str) -> str:
    """`text` with halves of surrogate pairs, which JSON can write and no file can hold, as "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _tasks(text: str) -> tuple[list[Mapping[str, Any]], bool]:
    """The tasks that a reply holds, and whether it holds the whole list that was asked for."""
    start = text.find("{")
    try:
        reply = _DECODER.raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        reply = None
    if isinstance(reply, dict) and isinstance(reply.get("tasks"), list):
        return [task if isinstance(task, dict) else {} for task in reply["tasks"]], True
    return list(_objects(text)), False


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The tasks in a text that are whole, however they are wrapped."""
    end = 0
    for tried, match in enumerate(_OPENING.finditer(text)):
        if tried == _TRIES:
            return
        if match.start() < end:
            continue  # within one that was taken
        try:
            found, after = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if any(key in found for keys in _KEYS.values() for key in keys):
            end = after
            yield found
