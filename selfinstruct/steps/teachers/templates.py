"""A server's chat template, up to where a user's message begins (Magpie's prompt).

llama.cpp renders messages at ``/apply-template``. vLLM has no such endpoint, but tokenizes messages
at ``/tokenize`` and writes tokens out at ``/detokenize``, which comes to the same text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from selfinstruct.core.errors import TeacherError, TeacherFault

# Plain letters, so that no tokenizer or template changes them.
SENTINEL = "selfinstruct placeholder"

Post = Callable[[str, dict[str, Any]], Awaitable[bytes]]


async def user_header(post: Post, model: str) -> str:
    """The text before a user's message.

    Args:
        post: sends a body to a path beside ``/v1`` and returns the reply's body.
        model: the model's name as the server knows it.

    Raises `TeacherError` where the server has neither way, `TeacherFault` where a call fails.
    """
    messages = [{"role": "user", "content": SENTINEL}]
    try:
        rendered = await _text(post, "apply-template", {"messages": messages})
    except TeacherFault as fault:
        if fault.kind != "not_found":
            raise
        rendered = await _through_tokens(post, model, messages)
    header, found, _ = rendered.partition(SENTINEL)
    if not found:
        raise TeacherError("the server's chat template changes the user's message")
    return header


async def _through_tokens(post: Post, model: str, messages: list[dict[str, str]]) -> str:
    try:
        reply = await post("tokenize", {"model": model, "messages": messages})
    except TeacherFault as fault:
        if fault.kind != "not_found":
            raise
        raise TeacherError(
            "the server shows no chat template (neither /apply-template as llama.cpp nor "
            "/tokenize as vLLM), so the strategy magpie cannot be used with it"
        ) from None
    tokens = _value(reply, "tokens")
    return await _text(post, "detokenize", {"model": model, "tokens": tokens})


async def _text(post: Post, path: str, body: dict[str, Any]) -> str:
    return str(_value(await post(path, body), "prompt"))


def _value(reply: bytes, name: str) -> Any:
    try:
        return orjson.loads(reply)[name]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise TeacherError(f"the server's reply about its chat template has no {name!r}") from None
