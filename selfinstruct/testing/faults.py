"""What can go wrong with a call, by name, and which fault a call gets.

A fault is drawn from the hash of the request and the number of the attempt, so that the same
request meets the same faults in the same order whatever runs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple


class Refusal(NamedTuple):
    """A fault that is an error status: OpenAI's error code, Anthropic's type, headers.

    `message` and `param` are those of servers that have no code for it.
    """

    status: int
    code: str
    kind: str
    headers: Mapping[str, str] = {}
    message: str = ""
    param: str | None = None


_DATE = "Tue, 19 Jan 2038 03:14:07 GMT"
REFUSALS: dict[str, Refusal] = {
    "400": Refusal(400, "invalid_request", "invalid_request_error"),
    "401": Refusal(401, "invalid_api_key", "authentication_error"),
    "402": Refusal(402, "insufficient_balance", "billing_error"),
    "403": Refusal(403, "forbidden", "permission_error"),
    "404": Refusal(404, "model_not_found", "not_found_error"),
    "413": Refusal(413, "request_too_large", "request_too_large"),
    "422": Refusal(422, "unprocessable", "invalid_request_error"),
    "429": Refusal(429, "rate_limit_exceeded", "rate_limit_error"),
    "429-after": Refusal(429, "rate_limit_exceeded", "rate_limit_error", {"Retry-After": "1"}),
    "429-soon": Refusal(429, "rate_limit_exceeded", "rate_limit_error", {"Retry-After": "0.2"}),
    "429-ms": Refusal(429, "rate_limit_exceeded", "rate_limit_error", {"retry-after-ms": "250"}),
    "429-date": Refusal(
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
        {"Retry-After": _DATE},
    ),
    "insufficient_quota": Refusal(429, "insufficient_quota", "billing_error"),
    "billing_limit": Refusal(400, "billing_hard_limit_reached", "billing_error"),
    "context": Refusal(400, "context_length_exceeded", "invalid_request_error"),
    "llama_context": Refusal(400, "exceed_context_size_error", "invalid_request_error"),
    "vllm_context": Refusal(
        400,
        "BadRequestError",
        "invalid_request_error",
        message="The prompt has 5000 input tokens.",
        param="input_tokens",
    ),
    "worded_context": Refusal(
        400,
        "BadRequestError",
        "invalid_request_error",
        message="This model's maximum context length is 4096 tokens. Please reduce the length.",
    ),
    "filtered_prompt": Refusal(400, "content_filter", "invalid_request_error"),
    "redirect": Refusal(307, "", "", {"Location": "http://192.0.2.1/elsewhere"}),
    "500": Refusal(500, "server_error", "api_error"),
    "503": Refusal(503, "unavailable", "api_error"),
    "504": Refusal(504, "gateway_timeout", "timeout_error"),
    "529": Refusal(529, "overloaded", "overloaded_error"),
}

# The other faults; the server says what each does where it serves it.
BROKEN: dict[str, str] = {
    "reset": "the connection is reset before any reply",
    "reset_in_body": "the connection is reset in the middle of the reply",
    "stall": "no reply ever comes",
    "stall_in_body": "the first half of the reply comes and then nothing",
    "slow_loris": "the reply comes a byte at a time and never ends",
    "invalid_json": "a page of HTML with status 200",
    "truncated_json": "the first half of the reply, as if it were all",
    "error_in_200": "an error body with status 200",
    "429_in_200": "the same with the status that a gateway's server gave as its code",
    "empty_choices": "a reply without choices",
    "wrong_types": "a reply whose fields have other types than the protocol's",
    "content_filter": "a reply that a content filter cut off",
    "refusal_field": "a refusal beside the content, as OpenAI's structured outputs give",
    "no_usage": "a good reply without usage",
    "length": "a good reply cut by max_tokens",
    "huge": "a reply of more than 32 MB",
}
NAMES: frozenset[str] = frozenset(REFUSALS) | frozenset(BROKEN) | {"ok"}

# Attempts for which a provider does the work, and charges, although the reply is of no use.
BILLED = frozenset(
    {
        "reset_in_body",
        "stall_in_body",
        "invalid_json",
        "truncated_json",
        "empty_choices",
        "wrong_types",
    }
    | {"content_filter", "refusal_field", "no_usage", "length", "huge", "ok"}
)


def check(shares: Mapping[str, float], script: Sequence[str]) -> None:
    """Raises ValueError where a fault's name is unknown or the shares pass 1."""
    unknown = [name for name in (*shares, *script) if name not in NAMES]
    if unknown:
        raise ValueError(f"no fault is called {unknown[0]!r}: one of {', '.join(sorted(NAMES))}")
    if not 0 <= sum(shares.values()) <= 1 or any(share < 0 for share in shares.values()):
        raise ValueError("the shares of faults must be between 0 and 1, all together too")


def draw(shares: Mapping[str, float], seed: int, digest: str, attempt: int) -> str:
    """The fault of the `attempt`-th call (from 0) of the request `digest`, or "ok"."""
    if not shares:
        return "ok"
    left = Random(f"{seed} {digest} {attempt}").random()
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return "ok"
