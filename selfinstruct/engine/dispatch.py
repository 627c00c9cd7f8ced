"""The dispatcher: from a request to its one final completion, through faults and under the cap.

It books every attempt in the ledger before it is made, sorts faults by kind (never by their text),
waits as long as the server asked and no longer, and prices what came back. How many calls are made
at once is up to `concurrency`, how many a minute to `limits`, and `health` says who asks while a
server is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import msgspec

from selfinstruct.core.errors import Interrupted, TeacherError, TeacherFault
from selfinstruct.core.types import Completion, Request
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.limits import Needs
from selfinstruct.engine.retries import Tries, delay, exhausted, given_up_too_often, refused_all
from selfinstruct.engine.route import Route
from selfinstruct.steps.costs.pricing import cost, worst_case

# How often a call that waits for an absent server looks whether it is its turn to ask.
TURN_S = 1.0


class _Failed(Exception):
    """An attempt's fault, with the attempt's number and the generation of the key it used."""

    def __init__(self, fault: TeacherFault, number: int, key: int) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.number = number
        self.key = key


class Counters(msgspec.Struct):
    """What the live panel shows of the dispatcher.

    `in_flight` is calls on the wire now, `allowed` how many there may be on the route that was
    last used.
    """

    in_flight: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    faults: dict[str, int] = msgspec.field(default_factory=dict)
    allowed: int = 0


class Dispatcher:
    """Makes calls for one stage of one run.

    Args:
        ledger: where every attempt and completion is recorded.
        budget: the money cap.
        stage: the name that the bill puts these calls under.
    """

    def __init__(self, ledger: Ledger, budget: Budget, stage: str) -> None:
        self._ledger = ledger
        self._budget = budget
        self._stage = stage
        self._stopping = asyncio.Event()
        self._fatal = ""
        self._given_up: dict[str, int] = {}  # requests given up since the last good reply, by kind
        self.counters = Counters()

    async def call(self, route: Route, request: Request) -> Completion:
        """The completion of `request`; recorded on the disk before it is returned.

        A request that can never succeed comes back as a completion with `finish` "failed", one
        that a filter refused with "content_filter". Raises `TeacherError` when every request would
        fail, `CapReached` at the cap and `LedgerError` when nothing can be recorded.
        """
        known = self._ledger.completion(request.id)
        if known is not None:
            return known
        await route.start()
        tries = Tries(route.health.answers)
        while True:
            self._check()
            while not route.health.may_try():
                await self._pause(random.uniform(0.5, 1) * TURN_S)
                self._check()
            try:
                return await self._attempt(route, request, tries)
            except _Failed as failure:
                tries.count(failure.fault, route.health)
                final = await self._after(route, request, failure, tries)
                if final is not None:
                    return final
                if failure.fault.kind != "unauthorized":  # else there is a new key to try at once
                    await self._pause(delay(failure.fault, tries))

    def stop(self) -> None:
        """Make no further call; those on the wire finish, those waiting to be repeated do not."""
        self._stopping.set()

    def _check(self) -> None:
        """Raise if no further call is to be made."""
        if self._fatal:
            raise TeacherError(self._fatal)
        if self._stopping.is_set():
            raise Interrupted("stopped before this call was made")

    def _stop_for(self, message: str) -> TeacherError:
        """The error that ends the run; calls that wait to be repeated end with it too."""
        self._fatal = self._fatal or message
        self._stopping.set()
        return TeacherError(message)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _attempt(self, route: Route, request: Request, tries: Tries) -> Completion:
        """One attempt within the limits, booked. Raises `_Failed`."""
        # What is asked again is older than what waits, and may be what the window waits for.
        await route.gate.enter(ahead=tries.again)
        try:
            booked = await self._book(route, request)
        except BaseException:
            route.gate.leave()
            raise
        return await self._on_the_wire(route, request, *booked)

    async def _book(self, route: Route, request: Request) -> tuple[int, int, Needs]:
        """Wait for the call's turn and record that it is made: its number, what is reserved."""
        needs, wait = route.pacer.take(request)
        try:
            if wait:
                await self._pause(wait)
            reserved = worst_case(route.rate, request)
            await self._budget.reserve(reserved)
        except BaseException:
            route.pacer.cancel(needs)
            raise
        try:
            self._check()  # it may have waited long for its turn
            return await self._ledger.sent(request, self._stage, reserved), reserved, needs
        except BaseException:
            self._budget.settle(reserved, 0)  # nothing was sent
            route.pacer.cancel(needs)
            raise

    async def _on_the_wire(
        self, route: Route, request: Request, number: int, reserved: int, needs: Needs
    ) -> Completion:
        """Send it and record what comes; the reservations are settled in any case."""
        began = time.perf_counter()
        spent = reserved  # what stays booked if this task is cancelled: possibly billed
        usage, key = None, route.keys
        counters = self.counters
        counters.in_flight += 1
        counters.calls += 1
        counters.allowed = route.gate.limit
        try:
            try:
                reply = await _within(route, request)
            except TeacherFault as fault:
                route.health.fault(fault.kind)
                if fault.kind == "rate_limited":
                    route.gate.rate_limited()
                raise
            finally:
                # Whoever waits for its place is to know of the limits, and need not wait for the
                # disk too.
                counters.in_flight -= 1
                route.pacer.learn(getattr(route.teacher, "limits", None))
                route.gate.leave()
            usage = reply.usage
            price = cost(route.rate, usage)
            if not usage.estimated:  # else the cap goes on counting the worst case
                spent = price
            completion = msgspec.structs.replace(
                reply,
                text=_storable(reply.text),
                cost=price,
                latency_ms=(time.perf_counter() - began) * 1000,
            )
            await self._ledger.done(number, completion)
        except TeacherFault as fault:
            spent = 0 if fault.billed == "no" else reserved
            raise _Failed(fault, number, key) from fault
        finally:
            self._budget.settle(reserved, spent)
            route.pacer.settle(needs, usage)
        route.gate.succeeded()
        route.health.answered()
        self._given_up.clear()
        counters.tokens_in += usage.input
        counters.tokens_out += usage.output
        return completion

    async def _after(
        self, route: Route, request: Request, failure: _Failed, tries: Tries
    ) -> Completion | None:
        """Book a fault and decide: None to try again, a failed completion, or an error."""
        fault, number = failure.fault, failure.number
        faults = self.counters.faults
        faults[fault.kind] = faults.get(fault.kind, 0) + 1
        if fault.kind == "unauthorized":
            again = route.renew_key(failure.key)
        else:
            again = fault.retryable and not exhausted(
                fault, tries, route.health, route.max_attempts
            )
        stop = "" if again else self._reason_to_stop(route, fault)
        if again or stop:
            await self._ledger.failed(number, fault.kind, fault.billed, fault.message)
            if stop:
                raise self._stop_for(stop)
            return None
        failed = Completion(
            request_id=request.id,
            text="",
            finish="content_filter" if fault.kind == "refused" else "failed",
            error=f"{fault.kind}: {fault.message}",
        )
        # Recorded, so that a request that cannot succeed is not paid for again at each start.
        await self._ledger.gave_up(number, failed, fault.billed)
        return failed

    def _reason_to_stop(self, route: Route, fault: TeacherFault) -> str:
        """Why the run cannot go on after this request was given up; "" where it can."""
        reason = refused_all(route.teacher, fault, route.health)
        if reason:
            return reason
        count = self._given_up[fault.kind] = self._given_up.get(fault.kind, 0) + 1
        return given_up_too_often(route.teacher, fault, count)


async def _within(route: Route, request: Request) -> Completion:
    """The teacher's reply, within the deadline."""
    try:
        async with asyncio.timeout(route.timeout_s):
            return await route.teacher(request)
    except TimeoutError:
        message = f"no reply within {route.timeout_s:g} s"
        raise TeacherFault("timeout", message, billed="maybe") from None


def _storable(text: str) -> str:
    """`text` with halves of surrogate pairs, which no file can hold, as question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
