"""The event loop: the faster one where it may be used, and asyncio's own for private runs."""

from __future__ import annotations

import asyncio
import sys

import pytest

from selfinstruct.engine import loop


async def module() -> str:
    """Where the running loop's class comes from."""
    return type(asyncio.get_running_loop()).__module__


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_the_faster_loop_where_it_may_be_used() -> None:
    """With uvloop installed, an open run is on it."""
    pytest.importorskip("uvloop")
    assert loop.run(module(), private=False).startswith("uvloop")


def test_a_private_run_stays_on_asyncios_loop() -> None:
    """Its name lookups are Python's, where the guard sees them."""
    assert loop.run(module(), private=True).startswith("asyncio")


def test_without_uvloop_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra; the standard loop does the same work."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop.run(module(), private=False).startswith("asyncio")
