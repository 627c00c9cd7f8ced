"""What the teachers on official SDKs share: reading replies and telling faults apart.

The SDKs keep authentication, addresses and headers. Their own retries are off, because the
dispatcher books every attempt, and replies are read as bytes with a limit on their size: the SDKs'
models would let a reply through whose fields have the wrong types.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from selfinstruct.core.errors import FaultKind, PrivacyError, TeacherFault, UserError
from selfinstruct.steps.privacy import Policy, host_of, is_loopback
from selfinstruct.steps.teachers import faults
from selfinstruct.steps.teachers.connection import LARGEST_REPLY, stalled
from selfinstruct.steps.teachers.keys import read_key
from selfinstruct.steps.teachers.proxied import may_use_proxy
from selfinstruct.steps.teachers.wire import CONNECT_S, KEEP_ALIVE_S, STALL_S

# A server on this machine needs no key, but the SDKs insist on one.
NO_KEY = "none"


def key_for(variable: str, base_url: str, file: str | None = None) -> str:
    """The key in `file` or `variable`. Raises `UserError` where a remote server's is missing."""
    return read_key(variable, needed=not is_loopback(host_of(base_url)), file=file) or NO_KEY


def renewed_key(old: str, variable: str, file: str | None) -> str | None:
    """The key as it is now, where it is another than `old`; None where there is nothing new."""
    try:
        key = read_key(variable, needed=True, file=file)
    except UserError:  # gone or half written: the server's refusal says more
        return None
    return key if key != old else None


def client_options(
    base_url: str, concurrency: int, timeout_s: float, policy: Policy
) -> dict[str, Any]:
    """How an SDK's own HTTP client (``DefaultAioHttpClient``) is to behave."""
    import httpx2

    limits = httpx2.Limits(
        max_connections=concurrency,
        max_keepalive_connections=concurrency,
        keepalive_expiry=KEEP_ALIVE_S,
    )
    return {
        "limits": limits,
        "timeout": httpx2.Timeout(timeout_s, connect=CONNECT_S),
        "follow_redirects": False,
        "trust_env": may_use_proxy(base_url, policy),
    }


async def fetch(
    call: AbstractAsyncContextManager[Any],
    timeout_s: float,
    secret: str,
    sdk_error: type[Exception],
    *,
    stall_s: float = STALL_S,
    heard: Callable[[Mapping[str, str]], None] | None = None,
) -> bytes:
    """The body of a reply with status 200.

    Args:
        call: an SDK's ``with_streaming_response.create(...)``, not yet entered.
        timeout_s: seconds from sending to the last byte.
        secret: the key, to be blotted out of messages.
        sdk_error: the base of the SDK's errors.
        stall_s: seconds without a byte, once the reply has begun.
        heard: given the headers of the reply, good or bad.

    Raises `TeacherFault`, and `PrivacyError` where the guard on connections refused the host.
    """
    import aiohttp
    import httpx2

    replying = False
    try:
        async with asyncio.timeout(timeout_s), call as response:
            replying = True
            if heard is not None:
                heard(response.headers)
            return await _read(response, stall_s)
    except TimeoutError:
        message = f"no complete reply within {timeout_s:g} s"
        raise TeacherFault("timeout", message, billed="maybe") from None
    except (sdk_error, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
        refusal = getattr(error, "response", None)
        if heard is not None and refusal is not None and not replying:
            heard(refusal.headers)
        raise fault_of(error, replying=replying, secret=secret) from None


async def _read(response: Any, stall_s: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_s) as patience:
            async for chunk in response.iter_bytes():
                patience.reschedule(loop.time() + stall_s)
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST_REPLY:
                    message = f"a reply of more than {LARGEST_REPLY >> 20} MB"
                    raise TeacherFault("bad_reply", message, billed="yes", status=200)
    except TimeoutError:
        raise stalled(stall_s) from None
    return b"".join(chunks)


def fault_of(error: Exception, *, replying: bool, secret: str) -> TeacherFault | PrivacyError:
    """What an SDK's, httpx2's or aiohttp's exception stands for.

    An error with a reply is told by its status and code; one without by the exception that began
    it, since the SDKs report some resets as timeouts.
    """
    response = getattr(error, "response", None)
    if response is not None and not replying:
        return faults.from_status(
            response.status_code, response.content, response.headers, secret=secret
        )
    links = list(_chain(error))
    for link in links:
        if isinstance(link, PrivacyError):
            return link
    message = faults.clean(str(links[-1]) or type(links[-1]).__name__, secret)
    if any(isinstance(link, _never_connected()) for link in links):
        return TeacherFault("connection", message)
    if any(isinstance(link, TimeoutError) for link in links):
        return TeacherFault("timeout", message, billed="maybe")
    # A reply that began and broke off was worked on; before that nobody can tell.
    kind: FaultKind = "bad_reply" if replying else "connection"
    return TeacherFault(kind, message, billed="maybe")


def _never_connected() -> tuple[type[Exception], ...]:
    import aiohttp

    return aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised from, down to the first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
