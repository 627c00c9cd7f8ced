"""Servers of a few lines that say exactly the bytes a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Answer = Callable[["Caller"], Awaitable[None]]


@dataclass
class Caller:
    """One connection as the server sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """A whole request, head and body; b"" where the client has hung up."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")]
        size = int(lengths[0].partition(b":")[2]) if lengths else 0
        return head + await self.reader.readexactly(size)

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()


@dataclass
class Raw:
    """A server: its port, what it was asked, and how many connections it had."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        """An address of the server."""
        return f"{scheme}://{host}:{self.port}/v1/chat/completions"


@contextlib.asynccontextmanager
async def serving(
    *replies: bytes | Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Raw]:
    """A server that answers each request in turn with the next of `replies`, the last for good.

    A reply is bytes, or a function that has the connection; after b"" it hangs up.
    """
    raw = Raw()
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving[task] = writer
        raw.connections += 1
        caller = Caller(reader, writer)
        with contextlib.suppress(ConnectionError):
            while request := await caller.request():
                raw.requests.append(request)
                reply = replies[min(len(raw.requests), len(replies)) - 1]
                if not isinstance(reply, bytes):
                    await reply(caller)
                elif reply:
                    await caller.say(reply)
                else:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for task, writer in serving.items():
            if not task.done():
                writer.transport.abort()
        await asyncio.gather(*serving, return_exceptions=True)
