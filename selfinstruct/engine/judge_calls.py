"""Scores by a judge: calls like any other, booked under "score", and none paid for twice.

A reply without a score on offer is asked for again, as a new request, up to the recipe's tries. The
score is read out of the stored completion each time, so a better reader costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from selfinstruct.core.errors import Interrupted, RecipeError, SelfInstructError
from selfinstruct.core.sections.select import JudgeConfig
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Candidate, Request, Sampling, SeedTask
from selfinstruct.engine.accounts import SCORE
from selfinstruct.engine.batch_admin import open_batches
from selfinstruct.engine.batches import Poll, run_batch
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.probe import follows_schema
from selfinstruct.engine.routes import Routes
from selfinstruct.engine.score_book import key_of
from selfinstruct.steps.scores.judge import PRODUCTS, Judge, asked_for
from selfinstruct.steps.teachers.batch import BatchClient
from selfinstruct.steps.teachers.batch_client import batch_client

Task = Candidate | SeedTask
Values = list[float | None]
Tell = Callable[[str, int, int], None]

STAGE = SCORE
# Calls at work for each that may be on the wire: some write to the ledger.
WORKERS_A_CALL = 1.5


class JudgeCalls:
    """One session of judging.

    Args:
        ledger: open for writing.
        budget: the money cap.
        routes: the judge's teacher, as the writer.
        teacher: its settings.
        config: the judge's.
        poll: how often to ask a batch API.

    Raises `RecipeError` where the judge is to be asked by batch and cannot, or the other way round.
    """

    def __init__(
        self,
        ledger: Ledger,
        budget: Budget,
        routes: Routes,
        teacher: TeacherConfig,
        config: JudgeConfig,
        poll: Poll | None = None,
    ) -> None:
        self._ledger = ledger
        self._budget = budget
        self._route = routes.writer
        self._teacher = teacher
        self._config = config
        self._client = self._batch_client() if config.batch else None
        if self._client is None:
            self._refuse_open_batches()
        ledger.close_lost_attempts()
        self._poll = poll
        self._dispatcher = Dispatcher(ledger, budget, STAGE)
        self._batch: asyncio.Task[None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Make no further call; those on the wire finish, and a batch goes on at the provider."""
        self._stopped = True
        self._dispatcher.stop()
        if self._batch is not None:
            self._batch.cancel()

    async def scores(
        self, names: list[str], tasks: Sequence[Task], tell: Tell
    ) -> dict[str, Values]:
        """The judge's scores among `names`; None for a record whose replies had none.

        Raises `CapReached`, `TeacherError`, `LedgerError` or `Interrupted`; what was paid for is in
        the ledger in every case.
        """
        found: dict[str, Values] = {}
        structured = bool(asked_for(names)) and await self._structured()
        for name in asked_for(names):
            judge = Judge(
                name,
                teacher=self._route.teacher.id,
                model=self._route.teacher.model,
                sampling=self._sampling(),
                structured=structured,
            )
            found[name] = await self._judged(judge, tasks, tell)
        for name in names:
            if name in PRODUCTS:
                one, other = (found[part] for part in PRODUCTS[name])
                found[name] = [
                    None if a is None or b is None else a * b
                    for a, b in zip(one, other, strict=True)
                ]
        return {name: found[name] for name in names if name in found}

    def _sampling(self) -> Sampling:
        return Sampling(
            max_tokens=self._config.max_tokens,
            temperature=self._config.temperature,
            extra=self._teacher.extra,
        )

    def _batch_client(self) -> BatchClient:
        client = batch_client(self._route.teacher)
        if client is None:
            raise RecipeError(
                "select.judge.batch: the judge has no batch API; it must be of kind openai or "
                "anthropic"
            )
        return client

    def _refuse_open_batches(self) -> None:
        name = self._route.teacher.id
        if items := open_batches(self._ledger).get(name, 0):
            raise RecipeError(
                f"{items} requests to {name} are under way in a batch, and would be paid for "
                "twice: set select.judge.batch=true until they are there, or see "
                "`selfinstruct batches RUN`"
            )

    async def _structured(self) -> bool:
        # The embedded llama.cpp server does, and a script need not.
        if self._teacher.kind in ("local", "scripted"):
            return True
        return await follows_schema(self._route, self._dispatcher, self._ledger)

    async def _judged(self, judge: Judge, tasks: Sequence[Task], tell: Tell) -> Values:
        keys = [key_of(task) for task in tasks]
        scores: dict[str, float | None] = {}
        unread = dict(zip(keys, tasks, strict=True))  # each text once
        for attempt in range(self._config.tries):
            requests = {key: judge.request(task, attempt) for key, task in unread.items()}
            await self._complete(list(requests.values()), f"judge: {judge.name}", tell)
            for key, request in requests.items():
                completion = self._ledger.completion(request.id)
                # One that was refused or given up would end the same way again.
                answered = completion is not None and completion.finish in ("stop", "length")
                scores[key] = judge.read(completion.text) if completion and answered else None
                if scores[key] is not None or not answered:
                    del unread[key]
            if not unread:
                break
        return [scores[key] for key in keys]

    # -- calls --------------------------------------------------------------------------------

    async def _complete(self, requests: Sequence[Request], said: str, tell: Tell) -> None:
        """Bring every request to a recorded completion."""
        if self._client is not None:
            await self._by_batch(requests, said, tell)
            return
        done = 0
        rest: Iterator[Request] = iter(requests)

        async def work() -> None:
            nonlocal done
            try:
                for request in rest:
                    await self._dispatcher.call(self._route, request)
                    done += 1
                    tell(said, done, len(requests))
            except SelfInstructError:
                self._dispatcher.stop()  # what is on the wire is paid for, and finishes
                raise

        size = min(len(requests), int(self._teacher.concurrency * WORKERS_A_CALL) + 1)
        ends = await asyncio.gather(*(work() for _ in range(size)), return_exceptions=True)
        errors = [end for end in ends if isinstance(end, BaseException)]
        # The cause goes before the stops that followed from it.
        errors.sort(key=lambda error: isinstance(error, Interrupted))
        if errors:
            raise errors[0]

    async def _by_batch(self, requests: Sequence[Request], said: str, tell: Tell) -> None:
        if self._stopped:
            raise Interrupted("stopped before this batch was sent")
        assert self._client is not None  # noqa: S101 (the caller has looked)
        wanted = [r for r in requests if self._ledger.completion(r.id) is None]
        if not wanted:
            return
        await self._route.start()
        self._batch = asyncio.create_task(
            run_batch(
                self._ledger,
                self._budget,
                self._client,
                self._route.rate,
                wanted,
                stage=STAGE,
                poll=self._poll,
                on_progress=lambda total, done, failed: tell(said, done + failed, total),
            )
        )
        try:
            await self._batch
        except asyncio.CancelledError:
            if not self._stopped:
                self._batch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._batch
                raise
            raise Interrupted(
                "stopped while a batch was under way; it goes on at the provider, and the same "
                "command takes it up again"
            ) from None
