"""Rate limits as providers keep them: buckets that fill steadily, told in the headers of replies.

Sources: OpenAI's "Rate limits in headers" and Anthropic's "Rate limits: response headers".
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

from selfinstruct.testing.bodies import Protocol


class Quota:
    """What may be asked in a window.

    Args:
        requests: requests in a window; no limit for 0.
        tokens: tokens in a window, those of prompts and replies together; no limit for 0.
        window_s: seconds in which an empty bucket fills.
    """

    def __init__(self, requests: int, tokens: int, window_s: float) -> None:
        self._most = {"requests": float(requests), "tokens": float(tokens)}
        self._left = dict(self._most)
        self._window_s = window_s
        self._at = time.monotonic()

    def admit(self, tokens: int) -> float | None:
        """Take a request of so many tokens: None if it may pass, else seconds until it might."""
        self._fill()
        wanted = {"requests": 1.0, "tokens": float(tokens)}
        waits = [
            (amount - self._left[name]) / self._most[name] * self._window_s
            for name, amount in wanted.items()
            if self._most[name] and min(amount, self._most[name]) > self._left[name]
        ]
        if waits:
            return max(waits)
        for name, amount in wanted.items():
            self._left[name] -= amount
        return None

    def headers(self, protocol: Protocol) -> dict[str, str]:
        """What a reply says about the limits."""
        said: dict[str, str] = {}
        for name, most in self._most.items():
            if not most:
                continue
            left = max(0, math.floor(self._left[name]))
            reset_s = (most - self._left[name]) / most * self._window_s
            if protocol == "messages":
                begin = f"anthropic-ratelimit-{name}-"
                back = datetime.now(UTC) + timedelta(seconds=reset_s)
                said[begin + "limit"] = f"{most:.0f}"
                said[begin + "remaining"] = str(left)
                said[begin + "reset"] = back.isoformat(timespec="milliseconds")
            else:
                said[f"x-ratelimit-limit-{name}"] = f"{most:.0f}"
                said[f"x-ratelimit-remaining-{name}"] = str(left)
                said[f"x-ratelimit-reset-{name}"] = _span(reset_s)
        return said

    def _fill(self) -> None:
        now = time.monotonic()
        share = (now - self._at) / self._window_s
        self._at = now
        for name, most in self._most.items():
            self._left[name] = min(most, self._left[name] + share * most)


def _span(seconds: float) -> str:
    """Seconds as OpenAI writes them: 20ms, 8.64s, 6m0s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.3g}s" if minutes else f"{rest:.3g}s"
