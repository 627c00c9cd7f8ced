"""What a slot of one strategy takes and brings, by the seeds and what is assumed of the teacher."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from selfinstruct.core.types import Candidate, Passage, SeedTask
from selfinstruct.steps.costs.forecast import Amounts
from selfinstruct.steps.costs.pricing import Rate
from selfinstruct.steps.costs.reply_sizes import ReplySizes
from selfinstruct.steps.costs.token_count import about_prompt_tokens, about_tokens
from selfinstruct.steps.costs.yields import Assumptions, TeacherClass
from selfinstruct.steps.strategies.shapes import Pool, Strategy

# Requests drawn for a strategy, and seeds whose answering request is counted.
DRAWN = 64


class SlotProfile:
    """Real requests are drawn from the seeds and counted; the rest is assumed.

    Args:
        strategy: the strategy, as the run will use it.
        seeds: the run's seed tasks.
        passages: its passages, for the strategy that asks about them.
        sizes: how long its replies will be.
        most: max_tokens of a call.
        writer: the price of writing calls; `answerer` that of answering ones.
        known: the assumptions; `kind` says which of them hold for this teacher.
        rng: draws the requests.
    """

    def __init__(
        self,
        strategy: Strategy,
        seeds: Sequence[SeedTask],
        passages: Sequence[Passage],
        sizes: ReplySizes,
        *,
        most: int,
        writer: Rate,
        answerer: Rate,
        known: Assumptions,
        kind: TeacherClass,
        rng: random.Random,
    ) -> None:
        self._sizes = sizes
        self._most = most
        self._writer = writer
        self._answerer = answerer
        self._known = known
        self._class = known.classes[kind]
        self._share = self._class.strategies[strategy.name].share
        self._two_step = strategy.two_step
        pool = Pool(seeds, passages)
        drafts = [strategy.draw(pool.view(0, slot=slot), rng) for slot in range(DRAWN)]
        prompts = [about_prompt_tokens(draft.messages, draft.prompt) for draft in drafts]
        schema = drafts[0].sampling.schema
        extra = about_tokens(msgspec.json.encode(schema).decode()) if schema else 0
        self._prompt = sum(prompts) / len(prompts) + extra
        self._answer_prompt = _answering(strategy, seeds, rng) if self._two_step else 0.0

    def slot(self, case: int) -> tuple[Amounts, float]:
        """What a slot takes and how many records it brings; `case` is 0 low, 1 expected, 2 high."""
        tokens = self._known.token_factor[case]
        length = self._class.length_factor[case] * tokens
        written, tasks = self._sizes.written(length, self._most)
        total = self._call(case, self._writer, self._prompt * tokens, written)
        if self._two_step:
            answered = self._sizes.answered(length, self._most)
            prompt = self._answer_prompt * tokens
            total = total + self._call(case, self._answerer, prompt, answered) * tasks
        return msgspec.structs.replace(total, slots=1.0), tasks * self._share[case]

    def _call(self, case: int, rate: Rate, prompt: float, reply: float) -> Amounts:
        """One call, with what a reasoning model thinks before it answers."""
        if rate.reasoning:
            reply = min(self._most, reply + self._known.thinking[case])
        speed = self._class.speed
        busy = speed.first_token_s[case] + reply / speed.tokens_per_s[case] if speed else 0.0
        return Amounts(
            requests=1.0,
            tokens_in=prompt,
            tokens_out=reply,
            cost=prompt * rate.input + reply * rate.output,
            busy_s=busy,
        )


def _answering(strategy: Strategy, seeds: Sequence[SeedTask], rng: random.Random) -> float:
    """Input tokens of the call that answers an instruction like the seeds'."""
    chosen = rng.sample(list(seeds), min(DRAWN, len(seeds)))
    counts = []
    for seed in chosen:
        candidate = Candidate(
            id=seed.id, slot=0, index=0, strategy=strategy.name, instruction=seed.instruction
        )
        draft = strategy.answer(candidate)
        counts.append(about_prompt_tokens(draft.messages, draft.prompt))
    return sum(counts) / len(counts)
