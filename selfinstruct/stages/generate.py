"""Generate: from seed tasks to judged records in the ledger.

The one feedback loop of the line is here: kept records join the pool that later slots draw their
examples from, as far as the sliding window lets them see.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from selfinstruct.core.errors import (
    Interrupted,
    LedgerError,
    NoProgress,
    RecipeError,
    SeedError,
    SelfInstructError,
    UserError,
)
from selfinstruct.core.money import from_dollars, show
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.generate import GenerateConfig
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.accounts import spent_at_most
from selfinstruct.engine.answers import BatchedAnswers
from selfinstruct.engine.batch_admin import cancel_batches, open_batches
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.judging import Judging, Progress
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.routes import Routes
from selfinstruct.engine.slots import SlotRunner
from selfinstruct.engine.window import SlidingWindow
from selfinstruct.steps.documents.shelf import Shelf, private_since, read_documents, together
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.seeds.reader import read_seeds
from selfinstruct.steps.teachers.batch_client import batch_client

STAGE = "generate"
# Slots at work for each call that may be on the wire: some write to the ledger, or wait to repeat.
SLOTS_A_CALL = 2.0
# The share of the tasks asked for that will be kept, as a guess.
GUESS = 0.6

OnStart = Callable[[Progress, Callable[[], None]], None]


async def generate(folder: RunFolder, on_start: OnStart | None = None) -> Progress:
    """Bring a run to its target; a run that is there already makes no call.

    Args:
        folder: a run folder, locked by the caller.
        on_start: given the progress, which changes in place, and a function that stops the run
            after the calls in flight.

    Raises `CapReached`, `TeacherError`, `LedgerError`, `NoProgress`, `Interrupted` or a
    `UserError`. What was paid for is in the ledger in every case.
    """
    recipe = folder.recipe()
    recipe.need_teacher()
    seeds, shelf = gather_seeds(recipe), gather_documents(recipe)
    with Ledger(folder.db_path) as ledger:
        session = ledger.begin_session(STAGE)
        try:
            run = _Generation(recipe, seeds, shelf, ledger)
            with enforce(Policy.of(recipe.privacy, recipe.allow_hosts)):
                await run.to_target(on_start)
        except asyncio.CancelledError:
            ledger.end_session(session, "Interrupted", "cancelled")
            raise
        except SelfInstructError as error:
            _note_the_end(ledger, session, error)
            raise
        ledger.end_session(session, "done", f"{run.progress.kept} records")
        return run.progress


def gather_seeds(recipe: Recipe) -> list[SeedTask]:
    """The seed tasks of a recipe, with ids unique over all its files. Raises `SeedError`."""
    seeds: dict[str, SeedTask] = {}
    for source in recipe.seeds:
        path = Path(source.path)
        for seed in read_seeds(path, private=source.private, limit=source.limit):
            if seed.id in seeds:
                seed = msgspec.structs.replace(seed, id=f"{path.stem}:{seed.id}")
            if seed.id in seeds:
                raise SeedError(f"{seed.source}: the id {seed.id!r} is taken by another seed file")
            seeds[seed.id] = seed
    return list(seeds.values())


def gather_documents(recipe: Recipe) -> Shelf:
    """The documents of a recipe as passages. Raises `DocumentError`, `MissingDependency`."""
    return together(
        read_documents(
            Path(source.path), words=source.words, private=source.private, limit=source.limit
        )
        for source in recipe.documents
    )


def routes_of(recipe: Recipe) -> Routes:
    """The recipe's teachers. Raises `RecipeError` or `PrivacyError`."""
    return Routes(
        recipe.need_teacher(),
        recipe.answer_teacher,
        policy=Policy.of(recipe.privacy, recipe.allow_hosts),
        prices=recipe.prices,
        no_price=recipe.generate.no_price,
        private=recipe.sealed_sources,
    )


async def cancel_open_batches(folder: RunFolder) -> int:
    """Ask the provider to end its batches of the run; how many. The caller holds the lock."""
    routes = routes_of(folder.recipe())
    client = batch_client(routes.answerer.teacher)
    if client is None:
        return 0
    with Ledger(folder.db_path) as ledger:
        try:
            await routes.answerer.start()
            return await cancel_batches(ledger, client)
        finally:
            await routes.close()


def _note_the_end(ledger: Ledger, session: int, error: SelfInstructError) -> None:
    """Note how a session ended, unless the ledger is what failed."""
    if not isinstance(error, LedgerError):
        ledger.end_session(session, type(error).__name__, str(error))


class _Generation:
    """One session of generation."""

    def __init__(
        self,
        recipe: Recipe,
        seeds: list[SeedTask],
        shelf: Shelf,
        ledger: Ledger,
    ) -> None:
        self._recipe = recipe
        self._config: GenerateConfig = recipe.generate
        self._ledger = ledger
        self._batched: BatchedAnswers | None = None
        self._guess = 1.0  # records a slot will bring
        self._known_slots = ledger.last_slot() + 1  # asked for by earlier sessions
        self.progress = Progress(target=self._config.target, began=time.time())
        self.progress.lost = ledger.close_lost_attempts()
        ledger.set_documents(
            [*shelf.passages, *private_since(ledger.passages(), shelf.passages)], shelf.in_short()
        )
        self._judging = Judging(
            self._config,
            recipe.filters,
            seeds,
            ledger,
            self.progress,
            shelf.passages,
            recipe.seed,
        )
        if self.progress.kept > self._config.target:
            raise UserError(
                f"generate.target is {self._config.target}, below the {self.progress.kept} records "
                "kept already; raise it, or start another run with --output"
            )

    def _width(self) -> int:
        """The window: the recipe's, else the one this run began with, else by concurrency."""
        remembered = self._ledger.meta("window")
        width = self._config.window or int(
            remembered or 16 * self._recipe.need_teacher().concurrency
        )
        if str(width) != remembered:
            self._ledger.set_meta("window", str(width))
        return width

    async def to_target(self, on_start: OnStart | None) -> None:
        """Open slots until the target is reached."""
        cap = self._config.max_cost
        budget = Budget(None if cap is None else from_dollars(cap), spent_at_most(self._ledger))
        self._budget = budget
        dispatcher = Dispatcher(self._ledger, budget, STAGE)
        self.progress.calls = dispatcher.counters
        self.progress.cost = budget.spent
        if self.progress.kept >= self._config.target:
            return
        routes = routes_of(self._recipe)
        self._batched = self._by_batch(routes, dispatcher)
        try:
            active, readers = await routes.strategies(
                self._config.strategies, self._ledger, dispatcher
            )
            whole = sum(weight for _, weight in active)
            self._guess = GUESS * sum(s.tasks * weight for s, weight in active) / whole
            runner = SlotRunner(
                seed=self._recipe.seed,
                strategies=active,
                readers=readers,
                writer=routes.writer,
                answerer=routes.answerer,
                dispatcher=dispatcher,
                answer=None if self._batched is None else self._batched.call,
                ledger=self._ledger,
                screen=self._judging.screen,
                known_slots=self._known_slots,
            )
            await self._work_through(runner, dispatcher, on_start)
        finally:
            await routes.close()
            self.progress.cost = budget.spent

    def _by_batch(self, routes: Routes, dispatcher: Dispatcher) -> BatchedAnswers | None:
        """What makes the answering calls, where the recipe wants them by batch."""
        if not self._config.batch_answers:
            for teacher, items in open_batches(self._ledger).items():
                raise RecipeError(
                    f"{items} answers of {teacher} are under way in a batch, and would be paid for "
                    "twice: keep generate.batch_answers=true until they are there, or see "
                    "`selfinstruct batches RUN`"
                )
            return None
        client = batch_client(routes.answerer.teacher)
        if client is None:
            raise RecipeError(
                "generate.batch_answers: the teacher that answers has no batch API; it must be of "
                "kind openai or anthropic (answer_teacher may name another than teacher)"
            )
        return BatchedAnswers(
            ledger=self._ledger,
            budget=self._budget,
            client=client,
            stage=STAGE,
            calling=lambda: dispatcher.counters.in_flight,
            on_progress=self._note_batch,
        )

    def _note_batch(self, total: int, done: int, failed: int) -> None:
        self.progress.batch = (total, done, failed)

    async def _work_through(
        self, runner: SlotRunner, dispatcher: Dispatcher, on_start: OnStart | None
    ) -> None:
        width = self._width()

        async def work(slot: int) -> list[Candidate]:
            return await runner.run(slot, *self._judging.sight(slot, width))

        def judge(slot: int, candidates: list[Candidate]) -> bool:
            self.progress.cost = self._budget.spent
            return self._judging.judge(slot, candidates)

        window = SlidingWindow(
            first=self._judging.slots,
            width=width,
            concurrency=self._slots_at_work(width),
            work=work,
            judge=judge,
            may_open=self._may_open,
        )

        def stop() -> None:
            self.progress.stopping = True
            dispatcher.stop()
            if self._batched is not None:
                self._batched.stop()
            window.stop()

        if on_start is not None:
            on_start(self.progress, stop)
        # A slot stopped between two calls says so; the end is explained for the run as a whole.
        with contextlib.suppress(Interrupted):
            await window.run()
        self._explain_the_end()

    def _slots_at_work(self, width: int) -> int:
        """More than may be on the wire, so that it stays full while slots write or wait.

        Slots that wait for a batch take no place on the wire at all: a whole window may wait.
        """
        if self._batched is not None:
            return width
        return min(width, math.ceil(SLOTS_A_CALL * self._recipe.need_teacher().concurrency))

    def _explain_the_end(self) -> None:
        """Return if the target is reached; say why not otherwise."""
        reached, target = self.progress.kept, self._config.target
        judging = self._judging
        if reached >= target:
            return
        if self.progress.stopping:
            raise Interrupted(
                f"interrupted with {reached} of {target} records kept; nothing is lost, the same "
                "command continues"
            )
        if judging.marginal.too_dear:
            raise NoProgress(
                f"stopped: a kept record now costs {show(round(judging.marginal.price))}, above "
                f"generate.max_cost_per_record ({reached} of {target} records kept); add seeds or "
                "another strategy, or raise the limit"
            )
        if judging.barren >= self._config.give_up_after:
            raise NoProgress(
                f"stopped: {judging.barren} slots in a row kept nothing ({reached} of {target} "
                "records kept); `status` shows why they were rejected. Add seeds or documents, "
                "another strategy or a stronger teacher, or raise generate.give_up_after"
            )
        raise NoProgress(
            f"stopped at generate.max_requests={self._config.max_requests} with {reached} of "
            f"{target} records kept; raise it to continue"
        )

    def _may_open(self, open_slots: int) -> bool:
        """Hold back when the open slots will probably reach the target: they are all paid for."""
        judged = self._judging.slots
        limit = self._config.max_requests
        following = judged + open_slots
        if self._judging.hopeless or (limit is not None and following >= limit):
            return False
        if open_slots == 0 or following < self._known_slots:
            return True
        if judged < self._known_slots:
            return False  # what was paid for already may be enough
        return not self._judging.enough(open_slots, self._guess)
