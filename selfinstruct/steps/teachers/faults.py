"""What an error reply means: from status and error code to a `TeacherFault`, not from its words.

Error codes are those that OpenAI (also behind Azure), Anthropic, llama.cpp and vLLM document. A
code that is not known leaves the decision to the status. One thing has no code on many servers: a
prompt that is too long. There the words of a 400 decide, between two faults of which neither is
billed or repeated as it was.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from selfinstruct.core.errors import Billed, FaultKind, TeacherFault

# Waiting does not mend these: the account is out of money or over a limit its owner set.
OUT_OF_MONEY = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "exceeded_current_quota_error",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
    }
)
CONTEXT_OVERFLOW = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"}
)
# vLLM names the parameter that was wrong.
_TOO_LONG_PARAMETER = "input_tokens"
# vLLM and SGLang of before 2026, TGI ("inputs tokens + max_new_tokens must be"), Anthropic.
_TOO_LONG = re.compile(
    r"maximum (?:context|model) length|context (?:length|window)|longer than the model"
    r"|tokens`? \+ `?max_new_tokens`? must be|prompt is too long",
    re.IGNORECASE,
)
REFUSED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})

_LONGEST_MESSAGE = 300
# What looks like a key, should a server quote the one it was sent.
_KEY = re.compile(r"\b(?:sk|pk|key|api|gsk|xai|hf)[-_][\w*.-]{8,}", re.IGNORECASE)


def from_status(
    status: int, body: bytes, headers: Mapping[str, str], *, secret: str = ""
) -> TeacherFault:
    """The fault that an error reply stands for.

    Args:
        status: the HTTP status, anything but 200.
        body: the reply's body as it came.
        headers: the reply's headers, looked up by lower or usual case.
        secret: the key that was sent, to be blotted out of the message.
    """
    codes, message = _codes_and_message(body)
    kind = _kind(status, codes)
    if kind == "bad_request" and status in (400, 422) and _TOO_LONG.search(message):
        kind = "context_overflow"
    text = clean(f"HTTP {status} {_location(status, headers)}{message}", secret)
    billed: Billed = "maybe" if status in (408, 504, 524) else "no"
    return TeacherFault(kind, text, retry_after=retry_after(headers), billed=billed, status=status)


def in_a_good_reply(error: Any, *, secret: str = "") -> TeacherFault:
    """The fault of a reply with status 200 whose body is an error: the work may have been done."""
    codes, message = _codes_and_message(orjson.dumps({"error": error}))
    kind: FaultKind = "out_of_money" if codes & OUT_OF_MONEY else "bad_reply"
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 600:  # a gateway's, for the server behind it
        kind = _kind(status, codes)
    return TeacherFault(
        kind, clean(f"status 200, but {message}", secret), billed="maybe", status=200
    )


def _kind(status: int, codes: frozenset[str]) -> FaultKind:
    if status == 402 or codes & OUT_OF_MONEY:
        return "out_of_money"
    if status == 429:
        return "rate_limited"
    if 400 <= status < 500 and codes & CONTEXT_OVERFLOW:
        return "context_overflow"
    if 400 <= status < 500 and codes & REFUSED:
        return "refused"
    if status in (401, 403):
        return "unauthorized"
    # No redirect is followed: what it points to is not what the recipe names.
    if status in (404, 405, 410) or 300 <= status < 400:
        return "not_found"
    if status == 408:
        return "timeout"
    if status in (409, 425) or (status >= 500 and status != 501):
        return "overloaded"
    return "bad_request"


def _codes_and_message(body: bytes) -> tuple[frozenset[str], str]:
    """Every machine-readable code of an error body, and what it says to people."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return frozenset(), body[: 2 * _LONGEST_MESSAGE].decode("utf-8", "replace")
    if isinstance(value, list) and value:  # Gemini's compatible endpoint wraps errors in a list
        value = value[0]
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return frozenset(), str(error)
    inner = [error, error.get("details"), error.get("innererror")]
    codes = {
        part[name]
        for part in inner
        if isinstance(part, dict)
        for name in ("code", "type", "error_code", "status")
        if isinstance(part.get(name), str)
    }
    if error.get("param") == _TOO_LONG_PARAMETER:
        codes.add("context_length_exceeded")
    return frozenset(codes), str(error.get("message") or error.get("detail") or "")


def _location(status: int, headers: Mapping[str, str]) -> str:
    if not 300 <= status < 400:
        return ""
    target = str(headers.get("location") or headers.get("Location") or "elsewhere")
    return f"redirects to {target.partition('?')[0]}, which is not followed "


def clean(message: str, secret: str = "") -> str:
    """`message` on one line, shortened, without `secret` or anything that looks like a key."""
    if secret:
        message = message.replace(secret, "[key]")
    message = " ".join(_KEY.sub("[key]", message).split())
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: retry-after-ms, or Retry-After as number or date."""
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    value = headers.get("retry-after") or headers.get("Retry-After")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value else math.nan
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
