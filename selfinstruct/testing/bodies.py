"""Request and reply bodies of the two protocols, and the errors as each provider words them."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NamedTuple

import orjson

from selfinstruct.testing.forms import Ask

Protocol = Literal["chat", "completions", "messages"]
PATHS: dict[str, Protocol] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/messages": "messages",
}
_FINISH = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


class Written(NamedTuple):
    """A reply before it is put into a protocol's shape."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    cached: int = 0


def digest(body: Any) -> str:
    """The hash of a request's body, whatever the order of its keys."""
    plain = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(plain, digest_size=16).hexdigest()


def tokens(text: str) -> int:
    """The fake's count of tokens: one per four characters, at least one."""
    return len(text) // 4 + 1


def read(protocol: Protocol, body: dict[str, Any]) -> tuple[Ask, str]:
    """What `body` asks, and all of its prompt as one text."""
    if protocol == "completions":
        prompt = str(body.get("prompt", ""))
        return Ask(prompt, raw=True), prompt
    texts = [_text(message.get("content")) for message in body.get("messages", [])]
    if protocol == "messages":
        form = (body.get("output_config") or {}).get("format") or {}
        schema = form.get("schema")
        texts.insert(0, _text(body.get("system")))
    else:
        form = body.get("response_format") or {}
        schema = form.get("json_schema", {}).get("schema")
    return Ask(texts[-1] if texts else "", schema=schema), "\n".join(texts)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def limits(body: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """The most tokens and the stop strings that `body` asks for."""
    most = body.get("max_completion_tokens") or body.get("max_tokens") or 4096
    stop = body.get("stop") or body.get("stop_sequences") or ()
    return int(most), (stop,) if isinstance(stop, str) else tuple(stop)


def reply(protocol: Protocol, model: str, name: str, written: Written) -> dict[str, Any]:
    """A complete reply body."""
    if protocol == "messages":
        return _anthropic(model, name, written)
    choice: dict[str, Any] = {"index": 0, "finish_reason": written.finish, "logprobs": None}
    if protocol == "chat":
        choice["message"] = {"role": "assistant", "content": written.text, "refusal": None}
    else:
        choice["text"] = written.text
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion" if protocol == "chat" else "text_completion",
        "created": 1_790_000_000,
        "model": model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": written.tokens_in,
            "completion_tokens": written.tokens_out,
            "total_tokens": written.tokens_in + written.tokens_out,
            "prompt_tokens_details": {"cached_tokens": written.cached},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def _anthropic(model: str, name: str, written: Written) -> dict[str, Any]:
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": written.text}] if written.text else [],
        "stop_reason": _FINISH[written.finish],
        "stop_sequence": None,
        "usage": {
            "input_tokens": written.tokens_in - written.cached,
            "cache_read_input_tokens": written.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": written.tokens_out,
        },
    }


def error(
    protocol: Protocol, code: str, kind: str, message: str, param: str | None = None
) -> bytes:
    """An error body: `code` is OpenAI's, `kind` Anthropic's error type."""
    if protocol == "messages":
        inner: dict[str, Any] = {"type": kind, "message": message}
        return orjson.dumps({"type": "error", "error": inner, "request_id": "req_fake"})
    inner = {"message": message, "type": code or "server_error", "param": param, "code": code}
    return orjson.dumps({"error": inner})
