"""Anthropic's Message Batches API: messages answered within a day at half the price.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any, BinaryIO

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Request
from selfinstruct.steps.teachers import faults
from selfinstruct.steps.teachers.anthropic_replies import read_message
from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher, request_body
from selfinstruct.steps.teachers.batch import (
    PAGE,
    Found,
    Limits,
    Outcome,
    RequestOf,
    Status,
    known_id,
    lines,
    told_apart,
    upload_timeout,
)

LIMITS = Limits(requests=100_000, bytes=256 * 10**6)
# The statuses that Anthropic's error types go with, so that both ways of failing read the same.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_BEGIN, _END = b'{"requests":[', b"]}"
_CHUNK = 2**18

_encode = msgspec.json.Encoder().encode


class AnthropicBatches:
    """A `BatchClient` on a started `AnthropicTeacher`.

    A batch of Anthropic's carries no name of ours, so each item does: its ``custom_id`` is the
    request's id, an underscore and the batch's marker. Its results prove whose it is.

    Args:
        teacher: whose model, key and connections are used.
        limits: how large a batch may be.
    """

    def __init__(self, teacher: AnthropicTeacher, limits: Limits = LIMITS) -> None:
        self.id = teacher.id
        self.model = teacher.model
        self.limits = limits
        self._teacher = teacher
        self._strangers: set[str] = set()

    def line(self, request: Request, marker: str) -> bytes:
        """See `BatchClient`. Raises `TeacherFault` for a raw prompt."""
        if not request.messages:
            raise TeacherFault("bad_request", "Anthropic takes messages, not a raw prompt")
        item = {"custom_id": f"{request.id}_{marker}", "params": request_body(request)}
        return _encode(item) + b"\n"

    async def upload(self, file: BinaryIO, marker: str) -> str:
        """Nothing: the batch is created with its items."""
        return ""

    async def newest(self) -> str:
        """See `BatchClient`; "" where there is no batch yet."""
        async with self._told_apart():
            page = await self._teacher.client.messages.batches.list(limit=1)
        return known_id(page.data[0]) if page.data else ""

    async def create(self, file: BinaryIO, file_id: str, marker: str) -> str:
        """See `BatchClient`.

        The body is sent as it lies in the file: built from dicts, a full batch would take over a
        gigabyte of memory.
        """
        from anthropic.types.messages import MessageBatch

        headers = {"Content-Type": "application/json", "Content-Length": str(_length(file))}
        async with self._told_apart():
            made = await self._teacher.client.post(
                "/v1/messages/batches",
                cast_to=MessageBatch,
                content=_body(file),
                options={"headers": headers, "timeout": upload_timeout()},
            )
        return known_id(made)

    async def find(self, marker: str, items: int, cursor: str, known: Collection[str]) -> Found:
        """See `BatchClient`; Anthropic lists the newest first.

        A batch of so many items is ours if its results say so, and undecided until it has ended.
        """
        undecided = False
        async with self._told_apart():
            async for batch in self._teacher.client.messages.batches.list(limit=PAGE):
                if batch.id == cursor:
                    break
                if batch.id in known or batch.id in self._strangers:
                    continue
                if _total(batch) != items or batch.archived_at is not None:
                    continue
                if batch.processing_status != "ended":
                    undecided = True
                elif await self._carries(batch.id, marker):
                    return Found(batch.id)
                else:
                    self._strangers.add(batch.id)
        return Found("", undecided)

    async def _carries(self, batch_id: str, marker: str) -> bool:
        """Whether the first result of an ended batch bears `marker`."""
        async with contextlib.aclosing(self._lines(batch_id)) as found:
            async for line in found:
                result = _result(line)
                return result is not None and result.custom_id.endswith(f"_{marker}")
        return False

    async def status(self, batch_id: str) -> Status:
        """See `BatchClient`. Single items expire or are canceled, and their results say so."""
        async with self._told_apart():
            batch = await self._teacher.client.messages.batches.retrieve(batch_id)
        known_id(batch)
        counts = batch.request_counts
        failed = counts.errored + counts.expired + counts.canceled
        if batch.processing_status != "ended":
            return Status(state="running", succeeded=counts.succeeded, failed=failed)
        if batch.archived_at is not None:
            raise TeacherFault("not_found", f"the results of {batch_id} are archived")
        return Status(state="ended", succeeded=counts.succeeded, failed=failed)

    async def results(
        self, batch_id: str, request_of: RequestOf
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """See `BatchClient`."""
        async with contextlib.aclosing(self._lines(batch_id)) as found:
            async for line in found:
                result = _result(line)
                request = request_of(result.custom_id.partition("_")[0]) if result else None
                if result is not None and request is not None:
                    yield request.id, _outcome(result.result, request, self._teacher.secret)

    async def cancel(self, batch_id: str) -> None:
        """See `BatchClient`."""
        async with self._told_apart():
            await self._teacher.client.messages.batches.cancel(batch_id)

    def _lines(self, batch_id: str) -> AsyncGenerator[bytes, None]:
        import anthropic

        batches = self._teacher.client.messages.batches
        call = batches.with_streaming_response.results(batch_id)
        return lines(call, anthropic.AnthropicError, self._teacher.secret)

    def _told_apart(self) -> Any:
        import anthropic

        return told_apart(anthropic.AnthropicError, self._teacher.secret)


def _length(file: BinaryIO) -> int:
    """Bytes of the body made of `file`: lines lose their ends and gain commas between them."""
    file.seek(0, 2)
    return len(_BEGIN) + file.tell() - 1 + len(_END)


async def _body(file: BinaryIO) -> AsyncIterator[bytes]:
    """The body of a creation: the file's lines as one list."""
    file.seek(0)
    yield _BEGIN
    chunk = file.read(_CHUNK)
    while chunk:
        following = file.read(_CHUNK)
        # JSON as it is written here has no line ends but those between items.
        yield (chunk if following else chunk.removesuffix(b"\n")).replace(b"\n", b",")
        chunk = following
    yield _END


def _total(batch: Any) -> int:
    """Items of a batch; the counts always sum up to them."""
    counts = batch.request_counts
    ended = counts.succeeded + counts.errored + counts.canceled + counts.expired
    return int(counts.processing + ended)


class _Error(msgspec.Struct):
    type: str = ""


class _ErrorReply(msgspec.Struct):
    error: _Error | None = None


class _Item(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Result(msgspec.Struct):
    custom_id: str
    result: _Item


_decode = msgspec.json.Decoder(_Result).decode
_decode_error = msgspec.json.Decoder(_ErrorReply | None).decode


def _result(line: bytes) -> _Result | None:
    """A line of the results; None where it is none, so that its item counts as missing."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _outcome(item: _Item, request: Request, secret: str) -> Outcome:
    match item.type:
        case "succeeded":
            try:
                return read_message(bytes(item.message), request, 0.0, secret)
            except TeacherFault as fault:
                return fault
        case "expired":
            return "expired"
        case "canceled":
            return "canceled"
        case _:
            return _fault(bytes(item.error), secret)


def _fault(body: bytes, secret: str) -> TeacherFault:
    """The fault of an errored item. Anthropic bills none of them."""
    try:
        reply = _decode_error(body)
    except msgspec.DecodeError:
        reply = None
    kind = reply.error.type if reply and reply.error else ""
    fault = faults.from_status(_STATUS.get(kind, 500), body, {}, secret=secret)
    fault.billed = "no"
    return fault
