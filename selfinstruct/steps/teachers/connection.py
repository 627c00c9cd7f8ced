"""One HTTP/1.1 connection: a request out, a whole reply back, within deadlines and caps.

The parser is llhttp, that of Node.js, through httptools; see `wire` for why and for the rest.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from selfinstruct.core.errors import FaultKind, TeacherFault

LARGEST_REPLY = 32 * 2**20
LARGEST_HEAD = 64 * 2**10
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Reply(NamedTuple):
    """A whole reply: names of headers are in lower case, the body is decompressed."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection, and the exchange that is under way on it.

    Args:
        connections: the open ones; this one is among them from its first to its last moment.
        timeout_s: seconds from sending to the last byte.
        stall_s: seconds without a byte, once the reply has begun.
    """

    def __init__(self, connections: set[Connection], timeout_s: float, stall_s: float) -> None:
        self.idle_since = 0.0
        self.reusable = False
        """Whether the last reply was read to its end and the server holds on."""
        self._connections = connections
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._heard = 0.0  # when the last bytes came, while there is patience
        self._begin()

    def _begin(self) -> None:
        """Expect a reply from its first line on."""
        self._status = 0
        self._headers: dict[str, str] = {}
        self._beside = 0  # bytes that came since the last of the body
        self._body: list[bytes] = []
        self._size = 0

    @property
    def alive(self) -> bool:
        """Whether the server has not hung up, as far as we have heard."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes) -> Reply:
        """Send `request` and read the whole reply. Raises `TeacherFault`."""
        if self._transport is None:
            raise RuntimeError("not connected")
        self._begin()
        self.reusable = False
        self._reply = self._loop.create_future()
        self._deadline = self._loop.call_later(self._timeout_s, self._late)
        self._transport.write(request)
        return await self._reply

    def abort(self) -> None:
        """Give the connection up, with whatever is under way on it."""
        self._settle()
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # -- what asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        reply = self._reply
        if reply is None:  # nobody asked for these
            self.abort()
            return
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(f"no HTTP/1.1: {error}")
        if reply.done():
            return
        if self._beside > LARGEST_HEAD:
            self._fail(f"headers or trailers of more than {LARGEST_HEAD >> 10} kB")
        elif self._size > LARGEST_REPLY:
            self._fail(too_large(self._status))
        elif self._status:
            self._heard = self._loop.time()
            if self._patience is None:
                self._patience = self._loop.call_later(self._stall_s, self._stands_still)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._connections.discard(self)
        if self._reply is None:
            return
        if exc is None and self._status and self._ends_with_the_connection():
            self._finish()
        else:
            self._fail(str(exc) if exc else "the server hung up before the end of its reply")

    # -- what the parser calls -------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that is repeated is a list (RFC 9110, 5.3)."""
        if self._status:  # a trailer, which means nothing here
            return
        key, said = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        before = self._headers.get(key)
        self._headers[key] = said if before is None else f"{before}, {said}"

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._beside = 0
        self._size += len(body)
        if self._size <= LARGEST_REPLY:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The reply is whole, or was only a word ahead of it (RFC 9110, 15.2)."""
        if 100 <= self._status < 200:
            self._begin()
        elif self._size <= LARGEST_REPLY:
            self._finish()

    # -- ends ------------------------------------------------------------------------------------

    def _ends_with_the_connection(self) -> bool:
        said = self._headers
        chunked = said.get("transfer-encoding", "").lower().endswith("chunked")
        return "content-length" not in said and not chunked

    def _finish(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        encoding = self._headers.get("content-encoding", "").lower()
        if encoding not in ("", "identity"):
            try:
                body = _decompressed(body, encoding)
            except (ValueError, zlib.error) as error:
                self._fail(f"a compressed reply that cannot be read: {error}")
                return
            if len(body) > LARGEST_REPLY:
                self._fail(too_large(self._status))
                return
        reply, done = self._reply, Reply(self._status, self._headers, body)
        self._settle()
        if reply is not None and not reply.done():
            reply.set_result(done)

    def _fail(self, why: str | TeacherFault) -> None:
        """End the exchange and the connection."""
        if isinstance(why, str):
            # A reply that began and broke off was worked on; before that nobody can tell.
            kind: FaultKind = "bad_reply" if self._status == 200 else "connection"
            why = TeacherFault(kind, why, billed="maybe")
        reply = self._reply
        self.abort()
        if reply is not None and not reply.done():
            reply.set_exception(why)
            reply.exception()  # nobody may be there to see it: the call may just be cancelled

    def _settle(self) -> None:
        """Nothing is waited for any more."""
        self._reply = None
        for timer in (self._deadline, self._patience):
            if timer is not None:
                timer.cancel()
        self._deadline = self._patience = None

    def _late(self) -> None:
        message = f"no complete reply within {self._timeout_s:g} s"
        self._fail(TeacherFault("timeout", message, billed="maybe"))

    def _stands_still(self) -> None:
        left = self._heard + self._stall_s - self._loop.time()
        if left > 0:  # bytes came since
            self._patience = self._loop.call_later(left, self._stands_still)
        else:
            self._fail(stalled(self._stall_s))


def stalled(stall_s: float) -> TeacherFault:
    """The fault of a reply that began and stood still."""
    message = f"the reply stood still for {stall_s:g} s"
    return TeacherFault("timeout", message, billed="maybe")


def too_large(status: int) -> TeacherFault:
    """The fault of a reply that nobody asked for in this size."""
    message = f"a reply of more than {LARGEST_REPLY >> 20} MB"
    return TeacherFault("bad_reply", message, billed="yes", status=status)


def _decompressed(body: bytes, encoding: str) -> bytes:
    """`body` decompressed, up to a byte more than a reply may have.

    Raises ValueError for an encoding nobody asked for, zlib.error for what is none.
    """
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"content-encoding {encoding}")
    whole = b""
    while body and len(whole) <= LARGEST_REPLY:
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        whole += stream.decompress(body, LARGEST_REPLY + 1 - len(whole))
        if len(whole) <= LARGEST_REPLY and not stream.eof:
            raise ValueError("it ends early")
        body = stream.unused_data  # gzip may go on with another member
    return whole
