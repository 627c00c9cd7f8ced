"""The fake server at the paths of the clouds: Azure's deployments, Bedrock's and Vertex's models.

Bodies and replies are those of the protocols behind them; only what the clouds do differently is
checked: where the model is named, how the version and the key are given.

    async with listening(CloudServer(Options(key="k"))) as server: server.url
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import orjson

from selfinstruct.testing import broken, faults
from selfinstruct.testing.handlers import FakeServer

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

AZURE = "/openai/deployments/{deployment}/chat/completions"
BEDROCK = "/model/{model}/invoke"
VERTEX = "/v1/projects/{project}/locations/{region}/publishers/anthropic/models/{model}:rawPredict"


class CloudServer(FakeServer):
    """A `FakeServer` that is Azure, Bedrock and Vertex too."""

    def application(self) -> web.Application:
        """The aiohttp application with the clouds' routes."""
        app = super().application()
        app.router.add_post(AZURE, self._azure(self._serving("chat")))
        for path in (BEDROCK, VERTEX):
            app.router.add_post(path, self._claude(self._serving("messages")))
        return app

    def _azure(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if "api-version" not in request.query:
                return broken.refuse("chat", faults.REFUSALS["404"])
            return await handler(request)

        return handle

    def _claude(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = orjson.loads(await request.read())
            if "anthropic_version" not in body or "model" in body:
                return broken.refuse("messages", faults.REFUSALS["400"])
            return await handler(request)

        return handle

    def _authorized(self, request: web.Request) -> bool:
        return super()._authorized(request) or request.headers.get("api-key") == self.options.key
