"""How long replies will be, by the lengths of the seeds: for estimates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.types import SeedTask
from selfinstruct.steps.costs.token_count import about_tokens
from selfinstruct.steps.costs.yields import Yield
from selfinstruct.steps.strategies import alpaca, self_instruct

# Tokens of the labels around a task: Alpaca's three labels and marks, a JSON object's keys and
# quotes, the number of a line, and the two labels of an instance.
_LIST, _OBJECT, _NUMBER, _INSTANCE = 20, 16, 3, 4


@dataclass(frozen=True)
class ReplySizes:
    """Tokens of the parts of a reply, a value for each seed.

    `count` is the number of tasks in a reply, `task` one task as it is written there, `answer` the
    reply of the second call of strategies that have one, `labels` what is put around a task.
    """

    count: int
    task: tuple[int, ...]
    answer: tuple[int, ...]
    labels: int

    def written(self, length: float, most: int) -> tuple[float, float]:
        """Tokens of a writing call's reply, and the whole tasks in it.

        Args:
            length: factor on the seeds' lengths.
            most: the call's max_tokens; a list that is longer ends there, its last task cut.
        """
        each = [self.labels + tokens * length for tokens in self.task]
        if self.count > 1:
            mean = sum(each) / len(each)
            whole = min(float(self.count), max(0.0, most / mean - 0.5))
            return min(float(most), self.count * mean), whole
        fits = sum(tokens <= most for tokens in each) / len(each)
        return sum(min(tokens, most) for tokens in each) / len(each), fits

    def answered(self, length: float, most: int) -> float:
        """Tokens of an answering call's reply."""
        return sum(min(most, tokens * length) for tokens in self.answer) / len(self.answer)


def reply_sizes(
    config: StrategyConfig, seeds: Sequence[SeedTask], known: Yield, unseen: int
) -> ReplySizes:
    """The sizes for a strategy.

    Args:
        config: the recipe's entry.
        seeds: whose lengths the tasks will have.
        known: its `candidates` go before what the prompt asks for.
        unseen: tokens of a task where there are no seeds.
    """
    candidates = known.candidates
    whole = _counts(seeds, lambda seed: (seed.instruction, seed.input, seed.output))
    instructions = _counts(seeds, lambda seed: (seed.instruction,))
    if config.kind == "alpaca":
        shown = config.examples or alpaca.DEFAULT_EXAMPLES
        asked = max(config.tasks_per_request, shown + 1) - shown
        return ReplySizes(candidates or asked, whole, (), _LIST)
    if config.kind == "self-instruct":
        answers = tuple(
            tokens + _INSTANCE for tokens in _counts(seeds, lambda seed: (seed.input, seed.output))
        )
        count = candidates or self_instruct.NEW_TASKS
        return ReplySizes(count, instructions, answers, _NUMBER)
    if config.kind == "documents":
        count = candidates or config.questions
        return ReplySizes(count, whole or (unseen,), (), _OBJECT)
    if config.kind == "json":
        return ReplySizes(candidates or 1, whole, (), _OBJECT)
    outputs = _counts(seeds, lambda seed: (seed.output,))
    return ReplySizes(candidates or 1, instructions, outputs, 0)


def _counts(
    seeds: Sequence[SeedTask], parts: Callable[[SeedTask], tuple[str, ...]]
) -> tuple[int, ...]:
    return tuple(sum(about_tokens(part) for part in parts(seed)) for seed in seeds)
