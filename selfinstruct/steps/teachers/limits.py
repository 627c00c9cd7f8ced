"""The rate limits that a server states in the headers of its replies.

Sources: OpenAI's "Rate limits in headers" (``x-ratelimit-limit-requests``, resets such as ``6m0s``
or ``20ms``; Azure, Groq and others send the same) and Anthropic's "Rate limits: response headers"
(``anthropic-ratelimit-requests-limit``, resets as RFC 3339 times, input and output tokens apart).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime

import msgspec

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6,
            "ns": 1e-9}  # fmt: skip


class Allowance(msgspec.Struct, frozen=True):
    """One limit: what is allowed in a window, what is left of it, seconds until all is back."""

    limit: float
    remaining: float
    reset_s: float | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply's headers said; None for what they did not say.

    `tokens` counts prompts and replies together, as OpenAI does; Anthropic counts them apart.
    """

    requests: Allowance | None = None
    tokens: Allowance | None = None
    input_tokens: Allowance | None = None
    output_tokens: Allowance | None = None


def read(headers: Mapping[str, str]) -> Limits | None:
    """The limits in a reply's `headers`, or None where they state none."""
    if "x-ratelimit-limit-requests" in headers or "x-ratelimit-limit-tokens" in headers:
        return Limits(requests=_openai(headers, "requests"), tokens=_openai(headers, "tokens"))
    if (
        "anthropic-ratelimit-requests-limit" in headers
        or "anthropic-ratelimit-output-tokens-limit" in headers
    ):
        return Limits(
            requests=_anthropic(headers, "requests"),
            tokens=_anthropic(headers, "tokens"),
            input_tokens=_anthropic(headers, "input-tokens"),
            output_tokens=_anthropic(headers, "output-tokens"),
        )
    return None


def seconds(text: str | None) -> float | None:
    """Seconds from now: ``6m0s``, ``20ms``, ``1.5`` or an RFC 3339 time; None where it is none."""
    text = (text or "").strip()
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    plain = _number(text)
    if plain is not None:
        return plain
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time()) if moment.tzinfo else None


def _openai(headers: Mapping[str, str], what: str) -> Allowance | None:
    return _allowance(
        headers.get(f"x-ratelimit-limit-{what}"),
        headers.get(f"x-ratelimit-remaining-{what}"),
        headers.get(f"x-ratelimit-reset-{what}"),
    )


def _anthropic(headers: Mapping[str, str], what: str) -> Allowance | None:
    begin = f"anthropic-ratelimit-{what}-"
    return _allowance(
        headers.get(begin + "limit"), headers.get(begin + "remaining"), headers.get(begin + "reset")
    )


def _allowance(limit: str | None, remaining: str | None, reset: str | None) -> Allowance | None:
    most, left = _number(limit), _number(remaining)
    # Some proxies send -1 or 0 for "no limit".
    if most is None or left is None or most <= 0:
        return None
    return Allowance(most, min(left, most), seconds(reset))


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
