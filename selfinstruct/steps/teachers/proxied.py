"""The same as `wire` through a proxy of the environment, which aiohttp knows how to speak to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from selfinstruct.core.errors import FaultKind, TeacherFault
from selfinstruct.steps.privacy import Policy, host_of, is_loopback
from selfinstruct.steps.teachers.connection import LARGEST_REPLY, Reply, stalled, too_large
from selfinstruct.steps.teachers.wire import CONNECT_S, KEEP_ALIVE_S

if TYPE_CHECKING:
    import aiohttp


def may_use_proxy(base_url: str, policy: Policy) -> bool:
    """Whether the environment's proxy may be used: not for this machine, nor by a local run.

    A proxy is another host that reads everything.
    """
    return not policy.local and not is_loopback(host_of(base_url))


def proxy_for(base_url: str, policy: Policy) -> str | None:
    """The proxy that the environment names for `base_url`, where one may be used."""
    host = host_of(base_url)
    if not may_use_proxy(base_url, policy) or proxy_bypass(host):
        return None
    return getproxies().get(urlsplit(base_url).scheme)


class Proxied:
    """A client for servers behind `proxy`, in the event loop that made it; see `wire.Wire`."""

    def __init__(
        self,
        headers: Mapping[str, str],
        proxy: str,
        connections: int,
        timeout_s: float,
        stall_s: float,
    ) -> None:
        import aiohttp

        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._session = aiohttp.ClientSession(
            headers=headers,
            proxy=proxy,
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def set_header(self, name: str, value: str) -> None:
        """Say `value` from now on."""
        self._session.headers[name] = value

    async def post(self, url: str, body: bytes) -> Reply:
        """The reply to `body`, whatever its status. Raises `TeacherFault` where none came."""
        import aiohttp

        status = 0
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                status = response.status
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(status, headers, await _read(response, self._stall_s))
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
        ) as error:
            raise TeacherFault("connection", _said(error)) from None
        except TimeoutError:
            message = f"no complete reply within {self._timeout_s:g} s"
            raise TeacherFault("timeout", message, billed="maybe") from None
        except (aiohttp.ClientError, OSError) as error:
            # A reply that began and broke off was worked on; before that nobody can tell.
            kind: FaultKind = "bad_reply" if status == 200 else "connection"
            raise TeacherFault(kind, _said(error), billed="maybe") from None

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _read(response: aiohttp.ClientResponse, stall_s: float) -> bytes:
    """The whole body, decompressed; a fault where it passes `LARGEST_REPLY` or stands still."""
    chunks: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_s) as patience:
            async for chunk in response.content.iter_any():
                patience.reschedule(loop.time() + stall_s)
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST_REPLY:
                    response.close()
                    raise too_large(response.status)
    except TimeoutError:
        raise stalled(stall_s) from None
    return b"".join(chunks)
