"""One task as a JSON object, held to a schema where the server can: for small local models.

A model of 100 million parameters loses the thread of a numbered list after a few items; under a
grammar every one of its replies is well-formed. It copies the examples it was shown about half of
the time, which the filters reject as such.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import msgspec
import orjson

from selfinstruct.core.types import Candidate, Completion, Request, Sampling
from selfinstruct.steps.prompts import load_prompt
from selfinstruct.steps.strategies.parsing import (
    INCOMPLETE,
    MALFORMED,
    UNPARSEABLE,
    candidate,
    clean_input,
    whole_reply,
)
from selfinstruct.steps.strategies.shapes import Draft, Example, PoolView

PROMPT = "prompts/json_task.txt"
PLACES = frozenset({"examples"})
DEFAULT_EXAMPLES, DEFAULT_MACHINE = 2, 0
FIELDS = ("instruction", "input", "output")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in FIELDS},
    "required": list(FIELDS),
    "additionalProperties": False,
}
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


class JsonTask:
    """One JSON object a reply.

    Args:
        prompt: a prompt file with the place examples.
        sampling: the parameters of every call.
        examples: tasks shown, as JSON lines.
        machine: how many of them may be machine-written.
        structured: whether to send the schema; the prompt asks for the same form in words.
    """

    name = "json"
    tasks = 1
    two_step = False

    def __init__(
        self,
        prompt: str | Path,
        sampling: Sampling,
        examples: int,
        machine: int,
        structured: bool = True,
    ) -> None:
        self._prompt = load_prompt(prompt, PLACES)
        self._sampling = (
            msgspec.structs.replace(sampling, schema=SCHEMA) if structured else sampling
        )
        self._examples = examples
        self._machine = machine

    def draw(self, view: PoolView, rng: random.Random) -> Draft:
        """The examples as JSON lines."""
        shown = view.draw(rng, self._examples - self._machine, self._machine)
        return Draft(
            messages=self._prompt.render(examples="\n".join(_show(example) for example in shown)),
            sampling=self._sampling,
            prompt_version=self._prompt.tag,
            parents=tuple(example.id for example in shown),
        )

    def parse(self, request: Request, completion: Completion) -> list[Candidate]:
        """The object of the reply, also from inside a code block or among other words."""
        found = _OBJECT.search(completion.text)
        try:
            task = orjson.loads(found[0] if found else completion.text)
        except ValueError:
            cut = completion.finish == "length"
            return [whole_reply(request, completion, INCOMPLETE if cut else UNPARSEABLE)]
        if not isinstance(task, dict):
            return [whole_reply(request, completion, UNPARSEABLE)]
        fields = {name: task.get(name, "") for name in FIELDS}
        whole = all(isinstance(value, str) for value in fields.values()) and "output" in task
        return [
            candidate(
                request,
                completion,
                0,
                instruction=str(fields["instruction"]).strip(),
                input=clean_input(str(fields["input"])),
                output=str(fields["output"]).strip(),
                defect="" if whole else MALFORMED,
                cost=completion.cost,
            )
        ]

    def answer(self, candidate: Candidate) -> Draft:
        """Not a two-step strategy."""
        raise TypeError("json writes whole tasks")

    def finish(self, candidate: Candidate, request: Request, completion: Completion) -> Candidate:
        """Not a two-step strategy."""
        raise TypeError("json writes whole tasks")


def _show(example: Example) -> str:
    task = {"instruction": example.instruction, "input": example.input, "output": example.output}
    return orjson.dumps(task).decode()
