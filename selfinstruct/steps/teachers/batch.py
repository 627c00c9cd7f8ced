"""What the clients of OpenAI's and Anthropic's batch APIs share.

A batch is a file of requests that the provider answers within a day at about half the price. The
clients here make single calls and tell faults apart; `engine.batches` decides when to make them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.teachers import sdk
from selfinstruct.steps.teachers.connection import LARGEST_REPLY
from selfinstruct.steps.teachers.wire import CONNECT_S

# Files go out as fast as the line allows; a quarter of a gigabyte may take a while.
UPLOAD_S = 3600.0
PAGE = 100

Unserved = Literal["expired", "canceled"]
"""Why an item was never worked on; it costs nothing."""
Outcome = Completion | TeacherFault | Unserved
RequestOf = Callable[[str], Request | None]


class Limits(msgspec.Struct, frozen=True):
    """How large a batch may be, in requests and in bytes of its file."""

    requests: int
    bytes: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is.

    `succeeded` and `failed` count items; Anthropic says them only at the end. A `rejected` batch
    was not accepted at all, and `problem` says why; `later` marks one that a full queue kept out,
    so that it will be accepted later.
    """

    state: Literal["running", "ended", "expired", "canceled", "rejected"]
    succeeded: int = 0
    failed: int = 0
    problem: str = ""
    later: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state != "running"


class Found(msgspec.Struct, frozen=True):
    """The search for a batch of ours: its id, or "" where the provider has none.

    `undecided`: a batch that may be ours is still being worked on, and only its end will tell.
    """

    id: str
    undecided: bool = False


class BatchClient(Protocol):
    """A provider's batch API for one teacher, started and closed by that teacher.

    Every call makes one attempt and raises `errors.TeacherFault`.
    """

    id: str
    model: str
    limits: Limits

    def line(self, request: Request, marker: str) -> bytes:
        """The item of a batch's file for `request`, one line."""
        ...

    async def upload(self, file: BinaryIO, marker: str) -> str:
        """Hand over the file where that is a step of its own; the file's id, else ""."""
        ...

    async def newest(self) -> str:
        """The newest batch there is, as far as `find` needs it."""
        ...

    async def create(self, file: BinaryIO, file_id: str, marker: str) -> str:
        """Create the batch; its id."""
        ...

    async def find(self, marker: str, items: int, cursor: str, known: Collection[str]) -> Found:
        """The batch that was created under `marker`, with so many items, after `cursor`.

        `known` are ids that belong to other batches.
        """
        ...

    async def status(self, batch_id: str) -> Status:
        """How far a batch is."""
        ...

    def results(
        self, batch_id: str, request_of: RequestOf
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """What became of the items, by request id, in any order; items may be missing.

        `request_of` gives the request of an id, or None where it is not ours.
        """
        ...

    async def cancel(self, batch_id: str) -> None:
        """Ask for an end; what is finished by then is billed and in the results."""
        ...


def upload_timeout() -> Any:
    """The SDKs' timeout for calls that carry a file."""
    import httpx2

    return httpx2.Timeout(UPLOAD_S, connect=CONNECT_S)


@contextlib.asynccontextmanager
async def told_apart(sdk_error: type[Exception], secret: str) -> AsyncIterator[None]:
    """Turn what an SDK's call raises into `TeacherFault` (or `PrivacyError`)."""
    import aiohttp
    import httpx2

    try:
        yield
    except (sdk_error, httpx2.HTTPError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise sdk.fault_of(error, replying=False, secret=secret) from None


def known_id(value: Any) -> str:
    """The id in a reply. Raises `TeacherFault` where there is none: nobody knows what was done."""
    found = getattr(value, "id", None)
    if isinstance(found, str) and found:
        return found
    raise TeacherFault("bad_reply", "a reply without an id", billed="maybe", status=200)


async def lines(
    call: AbstractAsyncContextManager[Any], sdk_error: type[Exception], secret: str
) -> AsyncGenerator[bytes, None]:
    """The lines of a file, as they come in.

    Args:
        call: an SDK's ``with_streaming_response`` call, not yet entered.
        sdk_error: the base of the SDK's errors.
        secret: the key, to be blotted out of messages.

    Raises `TeacherFault`.
    """
    rest = b""
    async with told_apart(sdk_error, secret), call as response:
        async for chunk in response.iter_bytes():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if line.strip():
                    yield line
            if len(rest) > LARGEST_REPLY:
                message = f"a result of more than {LARGEST_REPLY >> 20} MB"
                raise TeacherFault("bad_reply", message, billed="yes", status=200)
            await asyncio.sleep(0)  # a large chunk holds thousands of lines
    if rest.strip():
        yield rest
