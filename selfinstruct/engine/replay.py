"""Slots out of the ledger alone: what was answered is read again, and nothing is ever asked for.

`slots.SlotRunner` does the same and buys what is missing; here a missing answer is a defect, and a
slot that was never asked for is the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.types import Candidate, Completion, Request, Sampling, Verdict
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.slots import ANSWER, NOT_ANSWERED, TOO_LONG, WRITE, bought, with_answer
from selfinstruct.steps.strategies.build import STRATEGIES, make_strategy
from selfinstruct.steps.strategies.shapes import Strategy


class Replay:
    """Reads slots again.

    Args:
        configs: the recipe's strategies.
        ledger: of the run.
        screen: a verdict on an instruction alone, as `SlotRunner` has it: what it rejects was not
            worth an answer.
    """

    def __init__(
        self,
        configs: Sequence[StrategyConfig],
        ledger: Ledger,
        screen: Callable[[Candidate], Verdict | None],
    ) -> None:
        sampling = Sampling(max_tokens=1)  # nothing is asked for
        kinds = [StrategyConfig.model_validate({"kind": kind}) for kind in STRATEGIES]
        readers = [make_strategy(config, sampling) for config in (*kinds, *configs)]
        self._readers: dict[str, Strategy] = {reader.name: reader for reader in readers}
        self._ledger = ledger
        self._screen = screen
        self.not_answered = 0

    def slot(self, slot: int) -> list[Candidate] | None:
        """The candidates of a slot; None if what wrote them was never answered."""
        written = self._written(slot)
        if written is None:
            return None
        request, completion = written
        if completion.finish in ("failed", "content_filter"):
            return []
        strategy = self._readers[request.strategy]
        candidates = strategy.parse(request, completion)
        if not strategy.two_step:
            return candidates
        return [self._answered(strategy, candidate) for candidate in candidates]

    def _written(self, slot: int) -> tuple[Request, Completion] | None:
        """The reply that counts: of several branches the last, which was short enough."""
        branch = 0
        while True:
            found = self._ledger.finished(slot, WRITE, branch)
            if found is None:
                return None
            request, completion = found
            if len(request.parents) < 2 or not completion.error.startswith(TOO_LONG):
                return found
            branch += 1

    def _answered(self, strategy: Strategy, candidate: Candidate) -> Candidate:
        if candidate.defect or self._screen(candidate) is not None:
            return candidate
        found = bought(self._ledger.finished(candidate.slot, ANSWER, candidate.index), candidate)
        if found is None:
            self.not_answered += 1
            return msgspec.structs.replace(candidate, defect=NOT_ANSWERED)
        return with_answer(strategy, candidate, *found)
