"""One slot: draw a request or find it answered, parse the reply, answer what needs answering.

Everything random in a slot comes from a stream seeded by (run seed, slot), and everything it knows
of the run from its view of the pool, so a slot gives the same request whenever and however often it
is drawn.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Candidate, Completion, Request, Verdict
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.route import Route
from selfinstruct.engine.steering import Course
from selfinstruct.steps.strategies.shapes import Draft, PoolView, Strategy

WRITE, ANSWER = 0, 1
# Above this most models write noise, and some providers refuse the call.
HOTTEST = 1.5
# How the error of a completion begins whose prompt was too long for the model.
TOO_LONG = "context_overflow:"
# Defects that arise here; each is a reject reason of the same name.
UNANSWERED = "unanswered"  # the answering call failed for good
REFUSED = "refused"  # the teacher declined to answer
NOT_ANSWERED = "not_answered"  # the answer was never bought, and is not to be bought now


class SlotRunner:
    """Runs slots of one recipe.

    Args:
        seed: the run's seed.
        strategies: what to ask for, with the share of each; a slot's course may shift it.
        readers: a strategy by each name, to read what earlier settings of the recipe asked for.
        writer: who writes instructions; `answerer` answers those of two-step strategies.
        answer: makes the answering calls, where that is not the dispatcher, as single calls.
        screen: a verdict on an instruction alone, so that no answer is paid for what is rejected
            anyway; it may look at the candidate and its parents, and at nothing else of the run.
        known_slots: slots below this may have been asked for by an earlier session.
    """

    def __init__(
        self,
        *,
        seed: int,
        strategies: Sequence[tuple[Strategy, float]],
        readers: Mapping[str, Strategy],
        writer: Route,
        answerer: Route,
        dispatcher: Dispatcher,
        answer: Callable[[Route, Request], Awaitable[Completion]] | None,
        ledger: Ledger,
        screen: Callable[[Candidate], Verdict | None],
        known_slots: int,
    ) -> None:
        self._seed = seed
        self._strategies = list(strategies)
        self._readers = {**readers, **{strategy.name: strategy for strategy, _ in strategies}}
        self._writer = writer
        self._answerer = answerer
        self._dispatcher = dispatcher
        self._answer = answer or dispatcher.call
        self._ledger = ledger
        self._screen = screen
        self._known_slots = known_slots

    async def run(self, slot: int, view: PoolView, course: Course) -> list[Candidate]:
        """The candidates of a slot; none if the teacher refused or the call failed for good."""
        strategy, request, completion = await self._written(slot, view, course)
        if completion.finish in ("failed", "content_filter"):
            return []
        written = strategy.parse(request, completion)
        if not strategy.two_step:
            return written
        return list(
            await asyncio.gather(*(self._answered(strategy, candidate) for candidate in written))
        )

    async def _written(
        self, slot: int, view: PoolView, course: Course
    ) -> tuple[Strategy, Request, Completion]:
        """The slot's written reply; asked for again with fewer examples while they are too long.

        Each such request is a branch of its own, so that a run that goes on finds them all.
        """
        branch = 0
        while True:
            asked = await self._asked(slot, branch, view, course)
            _, request, completion = asked
            fewer = len(request.parents) // 2
            if not fewer or not completion.error.startswith(TOO_LONG):
                return asked
            view, branch = view.at_most(fewer), branch + 1

    async def _asked(
        self, slot: int, branch: int, view: PoolView, course: Course
    ) -> tuple[Strategy, Request, Completion]:
        finished = self._finished(slot, WRITE, branch)
        if finished is not None:
            request, completion = finished
            return self._readers[request.strategy], request, completion
        rng = random.Random(f"{self._seed}/{slot}")
        weights = [
            weight * course.favour.get(strategy.name, 1.0) for strategy, weight in self._strategies
        ]
        strategy = rng.choices(self._strategies, weights)[0][0]
        draft = _warmer(strategy.draw(view, rng), course.warmer)
        request = self._address(draft, self._writer, strategy, slot, WRITE, branch)
        return strategy, request, await self._dispatcher.call(self._writer, request)

    async def _answered(self, strategy: Strategy, candidate: Candidate) -> Candidate:
        if candidate.defect or self._screen(candidate) is not None:
            return candidate
        finished = bought(self._finished(candidate.slot, ANSWER, candidate.index), candidate)
        if finished is None:
            draft = strategy.answer(candidate)
            request = self._address(
                draft, self._answerer, strategy, candidate.slot, ANSWER, candidate.index
            )
            completion = await self._answer(self._answerer, request)
        else:
            request, completion = finished
        return with_answer(strategy, candidate, request, completion)

    def _finished(self, slot: int, step: int, branch: int) -> tuple[Request, Completion] | None:
        """What an earlier session paid for, whatever has changed since."""
        if slot >= self._known_slots:
            return None
        return self._ledger.finished(slot, step, branch)

    def _address(
        self, draft: Draft, route: Route, strategy: Strategy, slot: int, step: int, branch: int
    ) -> Request:
        digest = hashlib.sha256(f"{self._seed}/{slot}/{step}/{branch}".encode()).digest()
        sampling_seed = int.from_bytes(digest[:4], "big") >> 1
        return make_request(
            teacher=route.teacher.id,
            model=route.teacher.model,
            sampling=msgspec.structs.replace(draft.sampling, seed=sampling_seed),
            messages=draft.messages,
            prompt=draft.prompt,
            prompt_version=draft.prompt_version,
            sample=slot,
            slot=slot,
            step=step,
            branch=branch,
            strategy=strategy.name,
            parents=draft.parents,
        )


def bought(
    finished: tuple[Request, Completion] | None, candidate: Candidate
) -> tuple[Request, Completion] | None:
    """The answer that was found in a candidate's place, if it is to this very instruction.

    Where another instruction stood in that place once, its answer is not this one's.
    """
    return None if finished is None or finished[0].parents != (candidate.id,) else finished


def with_answer(
    strategy: Strategy, candidate: Candidate, request: Request, completion: Completion
) -> Candidate:
    """The candidate with what the answering call brought."""
    if completion.finish in ("failed", "content_filter"):
        return msgspec.structs.replace(
            candidate,
            defect=UNANSWERED if completion.finish == "failed" else REFUSED,
            requests=(*candidate.requests, request.id),
            cost=candidate.cost + completion.cost,
        )
    return strategy.finish(candidate, request, completion)


def _warmer(draft: Draft, degrees: float) -> Draft:
    """`draft` with more temperature, where it names one."""
    temperature = draft.sampling.temperature
    if not degrees or temperature is None:
        return draft
    sampling = msgspec.structs.replace(
        draft.sampling, temperature=round(min(HOTTEST, temperature + degrees), 3)
    )
    return msgspec.structs.replace(draft, sampling=sampling)
