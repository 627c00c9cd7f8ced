"""Replies of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Completion, FinishReason, Request, Usage
from selfinstruct.steps.teachers import faults
from selfinstruct.steps.teachers.replies import estimated

_FINISH: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Reply(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Reply).decode


def read_message(body: bytes, request: Request, latency_ms: float, secret: str) -> Completion:
    """The completion in a reply's body. Raises `TeacherFault` "bad_reply" where it is none."""
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"status 200, but the body is no completion: {error}"
        raise TeacherFault("bad_reply", message, billed="maybe", status=200) from None
    if reply.error is not None:
        raise faults.in_a_good_reply(reply.error, secret=secret)
    if reply.content is None:
        raise TeacherFault("bad_reply", "a reply without content", billed="maybe", status=200)
    text = "".join(block.text or "" for block in reply.content if block.type == "text")
    return Completion(
        request_id=request.id,
        text=text,
        finish=_FINISH.get(reply.stop_reason or "", "stop"),
        usage=_usage(reply.usage) if reply.usage else estimated(request, text),
        model=reply.model or request.model,
        latency_ms=latency_ms,
    )


def _usage(usage: _Usage) -> Usage:
    """Anthropic counts cached input apart; ours counts all of it."""
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return Usage(
        input=usage.input_tokens + cached + written,
        output=usage.output_tokens,
        cached=cached,
        cache_write=written,
        reasoning=(details.thinking_tokens or 0) if details else 0,
    )
