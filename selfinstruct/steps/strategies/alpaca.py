"""Alpaca's strategy: a few examples, then one long numbered list of new tasks in a single reply.

Source: Taori et al., "Stanford Alpaca: An Instruction-following LLaMA Model" (2023). The prompt's
wording is ours. The reply of a chat model may continue the list or begin it again; both are read.
"""

from __future__ import annotations

import random
from pathlib import Path

from selfinstruct.core.types import Candidate, Completion, Request, Sampling
from selfinstruct.steps.prompts import load_prompt
from selfinstruct.steps.strategies.parsing import candidates_from_items, numbered_items
from selfinstruct.steps.strategies.shapes import Draft, Example, PoolView

PROMPT = "prompts/alpaca.txt"
PLACES = frozenset({"count", "examples", "next"})
DEFAULT_EXAMPLES, DEFAULT_MACHINE = 3, 0


class Alpaca:
    """Many numbered tasks in one reply.

    Args:
        prompt: a prompt file with the places count, examples and next.
        sampling: the parameters of every call.
        examples: tasks shown.
        machine: how many of them may be machine-written.
        tasks: the number the list runs to, examples included.
    """

    name = "alpaca"
    two_step = False

    def __init__(
        self, prompt: str | Path, sampling: Sampling, examples: int, machine: int, tasks: int
    ) -> None:
        self._prompt = load_prompt(prompt, PLACES)
        self._prompt_version = self._prompt.tag  # a hash: once, not for every slot
        self._sampling = sampling
        self._examples = examples
        self._machine = machine
        self._tasks = max(tasks, examples + 1)
        self.tasks = self._tasks - examples

    def draw(self, view: PoolView, rng: random.Random) -> Draft:
        """The list's beginning, up to the label of its first open task."""
        shown = view.draw(rng, self._examples - self._machine, self._machine)
        messages = self._prompt.render(
            count=str(self._tasks),
            examples="\n".join(_show(n, example) for n, example in enumerate(shown, 1)),
            next=f"###\n{len(shown) + 1}. Instruction:",
        )
        return Draft(
            messages=messages,
            sampling=self._sampling,
            prompt_version=self._prompt_version,
            parents=tuple(example.id for example in shown),
        )

    def parse(self, request: Request, completion: Completion) -> list[Candidate]:
        """Every task in the reply; the one a length limit cut is marked incomplete."""
        items = numbered_items(completion.text, continues_instruction=True)
        return candidates_from_items(items, request, completion)

    def answer(self, candidate: Candidate) -> Draft:
        """Not a two-step strategy."""
        raise TypeError("alpaca writes whole tasks")

    def finish(self, candidate: Candidate, request: Request, completion: Completion) -> Candidate:
        """Not a two-step strategy."""
        raise TypeError("alpaca writes whole tasks")


def _show(number: int, example: Example) -> str:
    return (
        f"###\n{number}. Instruction: {example.instruction}\n"
        f"{number}. Input:\n{example.input or '<noinput>'}\n"
        f"{number}. Output:\n{example.output}"
    )
