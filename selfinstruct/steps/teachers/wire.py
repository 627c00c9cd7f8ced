"""HTTP/1.1 as a teacher needs it: POST some bytes, get a whole reply, keep the connection.

On a server of one's own a general client takes the largest part of a call's processor time, most of
it for what is never used here: cookies, redirects, streams, forms. This one parses replies with
llhttp, the parser of Node.js, through httptools, and leaves the rest to asyncio: names, happy
eyeballs, TLS. Proxies are left to aiohttp: see `proxied`.

Names are looked up and connections are made by Python's own socket module, on any event loop, so
that the guard behind ``privacy: local`` sees them.

Source: RFC 9110 and 9112.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

from selfinstruct.core.errors import TeacherFault
from selfinstruct.steps.teachers.connection import Connection, Reply

# uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) hang up after 5 idle seconds; we go first, so
# that a request does not meet a closing connection.
KEEP_ALIVE_S = 4.0
CONNECT_S = 20.0
# A server that has begun to reply goes on within this many seconds. Some send the headers at once
# and the body when the model is done, so it is as long as a reply may take to be written.
STALL_S = 60.0
# How long the addresses of a name are good for; when the next one is tried beside the first.
ADDRESSES_S, NEXT_ADDRESS_S = 10.0, 0.25


class Wire:
    """A client for the servers of one teacher, in the event loop that made it.

    Args:
        headers: what every request says besides host and length.
        connections: at most, to all servers together.
        timeout_s: seconds from sending to the last byte.
        stall_s: seconds without a byte, once the reply has begun.
    """

    def __init__(
        self, headers: Mapping[str, str], connections: int, timeout_s: float, stall_s: float
    ) -> None:
        self.timeout_s = timeout_s
        self.stall_s = stall_s
        self.open: set[Connection] = set()
        self._headers = dict(headers)
        self._places = asyncio.Semaphore(connections)
        self._servers: dict[str, _Server] = {}
        self._heads: dict[str, tuple[_Server, bytes]] = {}

    def set_header(self, name: str, value: str) -> None:
        """Say `value` from now on."""
        self._headers[name] = value
        self._heads.clear()

    async def post(self, url: str, body: bytes) -> Reply:
        """The reply to `body`, whatever its status. Raises `TeacherFault` where none came."""
        found = self._heads.get(url)
        if found is None:
            found = self._heads[url] = self._head(url)
        server, head = found
        async with self._places:
            connection = server.idle_one() or await server.connect(self)
            try:
                reply = await connection.exchange(b"%b%d\r\n\r\n%b" % (head, len(body), body))
            except asyncio.CancelledError:
                connection.abort()
                raise
            if connection.reusable:
                server.keep(connection)
            return reply

    async def close(self) -> None:
        """End all connections."""
        for connection in list(self.open):
            connection.abort()
        for _ in range(100):  # they are told in the next turns of the loop
            if not self.open:
                return
            await asyncio.sleep(0)

    def _head(self, url: str) -> tuple[_Server, bytes]:
        """The server of `url`, and a request's head up to the length of its body."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        server = self._servers.get(origin)
        if server is None:
            server = self._servers[origin] = _Server(parts)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        target += f"?{quote(parts.query, safe='/?%:@!$&()*+,;=~')}" if parts.query else ""
        # No compression is asked for: replies are short, and most servers are near.
        said = {"Host": server.name, "Accept-Encoding": "identity"} | self._headers
        if parts.username is not None and "Authorization" not in said:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            said["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        return server, "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")


class _Server:
    """One address: how to connect to it, and the connections that wait to be used again."""

    def __init__(self, parts: SplitResult) -> None:
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        self.host = host if host.isascii() else host.encode("idna").decode()
        self.port = parts.port or (443 if secure else 80)
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.name = name if parts.port is None else f"{name}:{parts.port}"
        self.tls = ssl.create_default_context() if secure else None
        self._idle: deque[Connection] = deque()
        self._addresses: list[_AddressInfo] = []
        self._looked_up = -ADDRESSES_S
        self._looking_up = asyncio.Lock()

    def idle_one(self) -> Connection | None:
        """The connection that was used last, if one may still be used."""
        idle, oldest = self._idle, time.monotonic() - KEEP_ALIVE_S
        while idle and idle[0].idle_since < oldest:
            idle.popleft().abort()
        while idle:
            connection = idle.pop()
            if connection.alive:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose reply was read to its end."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    async def connect(self, wire: Wire) -> Connection:
        """A new connection. Raises `TeacherFault` "connection", not billed: nothing was sent."""
        import aiohappyeyeballs

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await aiohappyeyeballs.start_connection(
                    await self._found(loop), happy_eyeballs_delay=NEXT_ADDRESS_S, loop=loop
                )
                try:
                    _, connection = await loop.create_connection(
                        lambda: Connection(wire.open, wire.timeout_s, wire.stall_s),
                        sock=found,
                        ssl=self.tls,
                        server_hostname=self.host if self.tls else None,
                    )
                except BaseException:
                    found.close()
                    raise
        except TimeoutError:
            message = f"{self.name}: no connection within {CONNECT_S:g} s"
            raise TeacherFault("connection", message) from None
        except OSError as error:
            message = f"cannot connect to {self.name}: {error.strerror or error}"
            raise TeacherFault("connection", message) from None
        return connection

    async def _found(self, loop: asyncio.AbstractEventLoop) -> list[_AddressInfo]:
        """The addresses of the host, looked up anew after a while."""
        async with self._looking_up:
            if time.monotonic() - self._looked_up >= ADDRESSES_S:
                found = await loop.run_in_executor(None, _look_up, self.host, self.port)
                self._addresses, self._looked_up = found, time.monotonic()
            return self._addresses


_AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


def _look_up(host: str, port: int) -> list[_AddressInfo]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return cast("list[_AddressInfo]", found)
