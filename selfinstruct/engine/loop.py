"""The event loop: uvloop where it is installed and may be used, asyncio's own otherwise.

uvloop looks names up in native code, which the guard behind `privacy: local` cannot see, so a local
run keeps to asyncio's loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result], *, private: bool) -> Result:
    """`asyncio.run`, on the faster loop unless `private`."""
    with asyncio.Runner(loop_factory=_factory(private)) as runner:
        return runner.run(work)


def _factory(private: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if private or sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
