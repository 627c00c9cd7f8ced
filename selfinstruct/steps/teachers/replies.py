"""Replies of OpenAI's protocol (chat and raw completions), decoded into completions."""

from __future__ import annotations

from typing import Any

import msgspec

from selfinstruct.core.errors import TeacherFault
from selfinstruct.core.types import Completion, FinishReason, Request, Usage
from selfinstruct.steps.teachers import faults


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class Reply(msgspec.Struct):
    """What is read of a reply's body; everything else in it is skipped."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Reply).decode
# "abort" (vLLM) and "error" (OpenRouter) end a reply that is no completion.
_BROKEN_OFF = frozenset({"abort", "error"})


def read(body: bytes, request: Request, latency_ms: float, *, secret: str = "") -> Completion:
    """The completion in the body of a reply with status 200.

    Raises `TeacherFault` "bad_reply" where it is none: such a reply may be billed.
    """
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"status 200, but the body is no completion: {error}"
        raise TeacherFault("bad_reply", message, billed="maybe", status=200) from None
    if reply.error is not None:
        raise faults.in_a_good_reply(reply.error, secret=secret)
    if not reply.choices:
        raise TeacherFault("bad_reply", "a reply without choices", billed="maybe", status=200)
    choice = reply.choices[0]
    text, finish = _text(choice)
    return Completion(
        request_id=request.id,
        text=text,
        finish=finish,
        usage=_usage(reply.usage, request, text),
        model=reply.model or request.model,
        latency_ms=latency_ms,
    )


def _text(choice: _Choice) -> tuple[str, FinishReason]:
    reason = choice.finish_reason
    if reason in _BROKEN_OFF:
        raise TeacherFault("bad_reply", f"broken off: {reason}", billed="maybe", status=200)
    message = choice.message
    if message is None:
        if choice.text is None:
            raise TeacherFault("bad_reply", "a choice without text", billed="yes", status=200)
        text = choice.text
    elif message.refusal:
        return message.refusal, "content_filter"
    elif isinstance(message.content, list):
        text = "".join(part.text or "" for part in message.content if part.type == "text")
    else:
        text = message.content or ""
    if reason == "length":
        return text, "length"
    return text, "content_filter" if reason == "content_filter" else "stop"


def _usage(usage: _Usage | None, request: Request, text: str) -> Usage:
    if usage is None or not usage.prompt_tokens or usage.completion_tokens is None:
        return estimated(request, text)
    given, made = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input=usage.prompt_tokens,
        output=usage.completion_tokens,
        cached=(given.cached_tokens or 0) if given else 0,
        cache_write=(given.cache_write_tokens or 0) if given else 0,
        reasoning=(made.reasoning_tokens or 0) if made else 0,
    )


def estimated(request: Request, text: str) -> Usage:
    """Usage where the server gave none: a token for every four bytes of text."""
    asked = sum(len(message.content.encode()) for message in request.messages)
    asked += len(request.prompt.encode())
    return Usage(input=asked // 4 + 1, output=len(text.encode()) // 4 + 1, estimated=True)
