"""OpenAI's Batch API: a file of chat calls, answered within a day at half the price.

Source: https://developers.openai.com/api/docs/guides/batch
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection
from typing import Any, BinaryIO, Final

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Request
from selfinstruct.steps.teachers import faults, replies
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
from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher, request_body

ENDPOINT: Final = "/v1/chat/completions"
LIMITS = Limits(requests=50_000, bytes=200 * 10**6)
# The queue of the model is full: the batch is refused now and taken later.
QUEUE_FULL = "token_limit_exceeded"

_encode = msgspec.json.Encoder().encode


class OpenAIBatches:
    """A `BatchClient` on a started `OpenAITeacher`.

    A batch carries our marker in its metadata, so that it is found again for sure.

    Args:
        teacher: whose model, key and connections are used.
        limits: how large a batch may be.
    """

    def __init__(self, teacher: OpenAITeacher, limits: Limits = LIMITS) -> None:
        self.id = teacher.id
        self.model = teacher.model
        self.limits = limits
        self._teacher = teacher

    def line(self, request: Request, marker: str) -> bytes:
        """See `BatchClient`. Raises `TeacherFault` for a raw prompt."""
        if not request.messages:
            raise TeacherFault("bad_request", "a batch takes messages, not a raw prompt")
        item = {"custom_id": request.id, "method": "POST", "url": ENDPOINT}
        return _encode({**item, "body": request_body(request)}) + b"\n"

    async def upload(self, file: BinaryIO, marker: str) -> str:
        """See `BatchClient`."""
        file.seek(0)
        async with self._told_apart():
            made = await self._teacher.client.files.create(
                file=(f"selfinstruct-{marker}.jsonl", file, "application/jsonl"),
                purpose="batch",
                timeout=upload_timeout(),
            )
        return known_id(made)

    async def newest(self) -> str:
        """Nothing: the marker alone finds a batch."""
        return ""

    async def create(self, file: BinaryIO, file_id: str, marker: str) -> str:
        """See `BatchClient`; the file was uploaded before."""
        async with self._told_apart():
            made = await self._teacher.client.batches.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={"selfinstruct": marker},
            )
        return known_id(made)

    async def find(self, marker: str, items: int, cursor: str, known: Collection[str]) -> Found:
        """See `BatchClient`; looks through all batches: no order of the list is promised."""
        async with self._told_apart():
            async for batch in self._teacher.client.batches.list(limit=PAGE):
                if (batch.metadata or {}).get("selfinstruct") == marker:
                    return Found(batch.id)
        return Found("")

    async def status(self, batch_id: str) -> Status:
        """See `BatchClient`."""
        async with self._told_apart():
            batch = await self._teacher.client.batches.retrieve(batch_id)
        return _status(batch)

    async def results(
        self, batch_id: str, request_of: RequestOf
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """See `BatchClient`; the output file, then the file of errors."""
        import openai

        client = self._teacher.client
        async with self._told_apart():
            batch = await client.batches.retrieve(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if not file_id:
                continue
            call = client.files.with_streaming_response.content(file_id)
            file = lines(call, openai.OpenAIError, self._teacher.secret)
            async with contextlib.aclosing(file):
                async for line in file:
                    result = _result(line)
                    request = request_of(result.custom_id) if result else None
                    if result is not None and request is not None:
                        yield request.id, _outcome(result, request, self._teacher.secret)

    async def cancel(self, batch_id: str) -> None:
        """See `BatchClient`."""
        async with self._told_apart():
            await self._teacher.client.batches.cancel(batch_id)

    def _told_apart(self) -> Any:
        import openai

        return told_apart(openai.OpenAIError, self._teacher.secret)


def _status(batch: Any) -> Status:
    """What OpenAI's eight statuses come to."""
    known_id(batch)
    counts = batch.request_counts
    done, failed = (counts.completed, counts.failed) if counts else (0, 0)
    match batch.status:
        case "completed":
            return Status(state="ended", succeeded=done, failed=failed)
        case "expired":
            return Status(state="expired", succeeded=done, failed=failed)
        case "cancelled":
            return Status(state="canceled", succeeded=done, failed=failed)
        case "failed":
            errors = (batch.errors.data if batch.errors else None) or []
            said = "; ".join(f"{error.code}: {error.message}" for error in errors)
            codes = {error.code for error in errors}
            problem = faults.clean(said or "the batch failed validation")
            return Status(state="rejected", problem=problem, later=codes == {QUEUE_FULL})
        case _:
            return Status(state="running", succeeded=done, failed=failed)


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Result(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Result).decode


def _result(line: bytes) -> _Result | None:
    """A line of a file of results; None where it is none, so that its item counts as missing."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _outcome(result: _Result, request: Request, secret: str) -> Outcome:
    if result.error is not None:
        return _unserved(result.error, secret)
    if result.response is None:
        return TeacherFault("bad_reply", "a result without a response", billed="maybe")
    body = bytes(result.response.body)
    if result.response.status_code != 200:
        return faults.from_status(result.response.status_code, body, {}, secret=secret)
    try:
        return replies.read(body, request, 0.0, secret=secret)
    except TeacherFault as fault:
        return fault


def _unserved(error: _Error, secret: str) -> Outcome:
    """What an item's own error means, by its code."""
    match error.code:
        case "batch_expired":
            return "expired"
        case "batch_cancelled":
            return "canceled"
        case "request_timeout":
            return TeacherFault("timeout", "the call timed out at the provider", billed="maybe")
        case _:
            said = faults.clean(f"{error.code}: {error.message}", secret)
            return TeacherFault("overloaded", said)
