"""Fixtures that more than one test module uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from selfinstruct.testing.fake_server import Options, Running, running


@pytest.fixture
def start_fake_server() -> Iterator[Callable[..., Running]]:
    """A function that starts a fake server with the given `Options` on a free loopback port."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(Options(**options)))


@pytest.fixture
def fake_server(start_fake_server: Callable[..., Running]) -> Running:
    """A fake server that behaves: no latency, no faults."""
    return start_fake_server()


@pytest.fixture
def float32_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bfloat16: equal trainings are then equal to many digits."""
    from selfinstruct.steps.training import runtime

    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
