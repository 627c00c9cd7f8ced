"""The classic strategy: eight instructions in, new instructions out, then an instance for each.

Source: Wang et al., "Self-Instruct: Aligning Language Models with Self-Generated Instructions"
(ACL 2023): 6 human and up to 2 machine-written instructions are shown; instances are asked for in a
second call, which also says what input the task needs. Prompts are ours, for chat models.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from selfinstruct.core.types import Candidate, Completion, Request, Sampling
from selfinstruct.steps.prompts import load_prompt
from selfinstruct.steps.strategies.parsing import (
    INCOMPLETE,
    MALFORMED,
    UNPARSEABLE,
    candidate,
    clean_input,
    numbered_items,
    share_cost,
    whole_reply,
    with_answer,
)
from selfinstruct.steps.strategies.shapes import Draft, PoolView

PROMPT, ANSWER_PROMPT = "prompts/self_instruct.txt", "prompts/self_instruct_instance.txt"
PLACES, ANSWER_PLACES = frozenset({"tasks", "next", "last"}), frozenset({"instruction"})
DEFAULT_EXAMPLES, DEFAULT_MACHINE = 8, 2
NEW_TASKS = 8

_LINE = re.compile(r"^[ \t]*(?:Task[ \t]+)?[*_]{0,2}(\d{1,3})[.):][*_]{0,2}[ \t]+(\S.*)$", re.M)


class SelfInstruct:
    """Instructions first, an instance for each in a second call.

    Args:
        prompt: a prompt file with the places tasks, next and last.
        sampling: the parameters of the call that writes.
        answering: the parameters of the call that answers.
        examples: instructions shown.
        machine: how many of them may be machine-written.
        answer_prompt: the second call's prompt file, with the place instruction.
    """

    name = "self-instruct"
    tasks = NEW_TASKS
    two_step = True

    def __init__(
        self,
        prompt: str | Path,
        sampling: Sampling,
        answering: Sampling,
        examples: int,
        machine: int,
        answer_prompt: str | Path = ANSWER_PROMPT,
    ) -> None:
        self._prompt = load_prompt(prompt, PLACES)
        self._answer = load_prompt(answer_prompt, ANSWER_PLACES)
        self._sampling = sampling
        self._answering = answering
        self._examples = examples
        self._machine = machine

    def draw(self, view: PoolView, rng: random.Random) -> Draft:
        """The instructions shown, and the numbers of the new ones."""
        shown = view.draw(rng, self._examples - self._machine, self._machine)
        first = len(shown) + 1
        messages = self._prompt.render(
            tasks="\n".join(
                f"{n}. {' '.join(example.instruction.split())}"
                for n, example in enumerate(shown, 1)
            ),
            next=str(first),
            last=str(first + NEW_TASKS - 1),
        )
        return Draft(
            messages=messages,
            sampling=self._sampling,
            prompt_version=self._prompt.tag,
            parents=tuple(example.id for example in shown),
        )

    def parse(self, request: Request, completion: Completion) -> list[Candidate]:
        """One candidate without output for each numbered line."""
        lines = [match[2].strip().strip("*_").strip() for match in _LINE.finditer(completion.text)]
        if not lines:
            return [whole_reply(request, completion, UNPARSEABLE)]
        cut = completion.finish == "length"
        found = [
            candidate(
                request,
                completion,
                index,
                instruction=line,
                defect=INCOMPLETE if cut and index == len(lines) - 1 else "",
            )
            for index, line in enumerate(lines)
        ]
        return share_cost(found, completion.cost)

    def answer(self, candidate: Candidate) -> Draft:
        """Ask for the input the task needs, if any, and its output."""
        return Draft(
            messages=self._answer.render(instruction=candidate.instruction),
            sampling=self._answering,
            prompt_version=self._answer.tag,
            parents=(candidate.id,),
        )

    def finish(self, candidate: Candidate, request: Request, completion: Completion) -> Candidate:
        """Read ``Input:`` and ``Output:``; a reply without labels is the output."""
        items = numbered_items(completion.text, continues_instruction=False)
        fields = items[0].fields if items else {"output": completion.text.strip()}
        return with_answer(
            candidate,
            request,
            completion,
            input=clean_input(fields.get("input", "")),
            output=fields.get("output", ""),
            defect="" if "output" in fields else MALFORMED,
        )
