"""Scores by models on this machine: what is known is used, the rest is worked out and kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from selfinstruct.core.errors import LedgerError, SelfInstructError
from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.score_book import ScoreBook
from selfinstruct.engine.selection import LIKELIHOOD
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.scores.likelihood import Likelihood, ifd, perplexity
from selfinstruct.steps.scores.reward import Reward

Task = Candidate | SeedTask
Values = list[float | None]
Tell = Callable[[str, int, int], None]
Batches = Iterable[Sequence[tuple[int, float | None]]]


class ModelScores:
    """The scores of `tasks` that a local model gives.

    Args:
        config: names the models.
        policy: whether the Hub may be asked for them.
        ledger: open for writing.
        tasks: the records.
    """

    def __init__(
        self, config: SelectConfig, policy: Policy, ledger: Ledger, tasks: Sequence[Task]
    ) -> None:
        self._config = config
        self._policy = policy
        self._ledger = ledger
        self._tasks = tasks

    def scores(self, names: Sequence[str], tell: Tell) -> dict[str, Values]:
        """Those of `names` that are a local model's, by name.

        Raises `UserError` or `MissingDependency` where a model cannot be used.
        """
        found: dict[str, Values] = {}
        if any(name in LIKELIHOOD for name in names):
            found |= self._likelihood(names, tell)
        if "reward" in names:
            found["reward"] = self._reward(tell)
        return {name: found[name] for name in names if name in found}

    def _likelihood(self, names: Sequence[str], tell: Tell) -> dict[str, Values]:
        config = self._config
        model = Likelihood(
            config.model, self._policy, device=config.device, max_length=config.max_length
        )
        given = self._kept(
            f"loss:given:{model.identity}",
            lambda tasks: model.losses(tasks, alone=False),
            tell,
            "loss of answers",
        )
        found = {"perplexity": [perplexity(value) for value in given]}
        if "ifd" in names:
            alone = self._kept(
                f"loss:alone:{model.identity}",
                lambda tasks: model.losses(tasks, alone=True),
                tell,
                "loss of answers alone",
            )
            found["ifd"] = [ifd(g, a) for g, a in zip(given, alone, strict=True)]
        return found

    def _reward(self, tell: Tell) -> Values:
        config = self._config
        assert config.reward_model is not None  # noqa: S101 (the recipe's model checks it)
        model = Reward(
            config.reward_model, self._policy, device=config.device, max_length=config.max_length
        )
        return self._kept(f"reward:{model.identity}", model.rewards, tell, "reward")

    def _kept(
        self, kind: str, work: Callable[[Sequence[Task]], Batches], tell: Tell, said: str
    ) -> Values:
        """The scores of `kind`: from the ledger, and by `work` where it has none."""
        book = ScoreBook(self._ledger, kind, self._tasks)
        missing = book.missing()
        done = 0
        try:
            for batch in work([self._tasks[at] for at in missing]) if missing else ():
                book.add((missing[at], value) for at, value in batch)
                done += len(batch)
                tell(said, done, len(missing))
        finally:
            book.flush()
        return book.values()


@contextlib.contextmanager
def session(ledger: Ledger, stage: str) -> Iterator[None]:
    """Note in the ledger when work on `stage` began and how it ended."""
    number = ledger.begin_session(stage)
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        ledger.end_session(number, "Interrupted", "cancelled")
        raise
    except SelfInstructError as error:
        if not isinstance(error, LedgerError):
            ledger.end_session(number, type(error).__name__, str(error))
        raise
    ledger.end_session(number, "done")
