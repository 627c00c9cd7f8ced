"""Magpie: the chat template up to where a user would speak, and the model speaks as the user.

Source: Xu et al., "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with
Nothing" (2024). It needs raw completions and the template's text, so it works with servers of one's
own. No example is shown, so there is none to copy; each slot has a sampling seed of its own.
"""

from __future__ import annotations

import random
from pathlib import Path

from selfinstruct.core.types import Candidate, Completion, Request, Sampling
from selfinstruct.steps.prompts import load_prompt
from selfinstruct.steps.strategies.parsing import INCOMPLETE, candidate, with_answer
from selfinstruct.steps.strategies.shapes import Draft, PoolView

PROMPT = "prompts/answer.txt"
PLACES = frozenset({"instruction"})


class Magpie:
    """The user header alone, then the answer.

    Args:
        prompt: the answering call's prompt file, with the place instruction.
        sampling: the parameters of the call that writes.
        answering: the parameters of the call that answers.
        header: the chat template's text up to a user's first word.
    """

    name = "magpie"
    tasks = 1
    two_step = True

    def __init__(
        self, prompt: str | Path, sampling: Sampling, answering: Sampling, header: str
    ) -> None:
        self._prompt = load_prompt(prompt, PLACES)
        self._sampling = sampling
        self._answering = answering
        self._header = header

    def draw(self, view: PoolView, rng: random.Random) -> Draft:
        """The header; what makes slots differ is their sampling seed."""
        return Draft(prompt=self._header, sampling=self._sampling, prompt_version="magpie@1")

    def parse(self, request: Request, completion: Completion) -> list[Candidate]:
        """What the model said as the user."""
        return [
            candidate(
                request,
                completion,
                0,
                instruction=completion.text.strip(),
                defect=INCOMPLETE if completion.finish == "length" else "",
                cost=completion.cost,
            )
        ]

    def answer(self, candidate: Candidate) -> Draft:
        """The instruction, asked as it is."""
        return Draft(
            messages=self._prompt.render(instruction=candidate.instruction),
            sampling=self._answering,
            prompt_version=self._prompt.tag,
            parents=(candidate.id,),
        )

    def finish(self, candidate: Candidate, request: Request, completion: Completion) -> Candidate:
        """The reply is the output."""
        return with_answer(candidate, request, completion, output=completion.text.strip())
