"""A fake server that can be killed and brought back at the same address."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from selfinstruct.testing.fake_server import FakeServer, Options, running


class Mortal:
    """A server of a fleet.

    It serves when it is made; `kill` ends it, so that connections are refused, and `revive` lets it
    serve again on the same port, with its statistics begun anew. Close it by ``with``.

    Args:
        options: those of the fake server.
    """

    def __init__(self, **options: Any) -> None:
        self._options = Options(**options)
        self._stack = ExitStack()
        self._alive = self._stack.enter_context(running(self._options))
        self.url = self._alive.url

    @property
    def server(self) -> FakeServer:
        """The server as it was last alive."""
        return self._alive.server

    def kill(self) -> None:
        """Break all connections and refuse new ones."""
        self._stack.close()

    def revive(self) -> None:
        """Serve again."""
        port = urlsplit(self.url).port or 0
        self._alive = self._stack.enter_context(running(self._options, port))

    def __enter__(self) -> Mortal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
