"""The event loop: uvloop where it is installed and may be used, asyncio's own otherwise.

uvloop looks names up in native code, which the guard behind `privacy: local` cannot see, so a local
run keeps to asyncio's loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result], *, private: bool) -> Result:
    """`asyncio.run`, on the faster loop unless `private`."""
    with asyncio.Runner(loop_factory=_factory(private)) as runner:
        return runner.run(work)


def run_sync(coroutine: Coroutine[Any, Any, Result], *, private: bool = True) -> Result:
    """The result of `coroutine`, from inside a running event loop too (in a thread of its own).

    Unless `private`, it may run on uvloop.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(coroutine, private=private)
    outcome: list[Result] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            outcome.append(context.run(partial(run, coroutine, private=private)))
        except BaseException as error:  # noqa: BLE001 (handed to the caller's thread, not hidden)
            failure.append(error)

    thread = threading.Thread(target=work, name="selfinstruct")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _factory(private: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if private or sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
