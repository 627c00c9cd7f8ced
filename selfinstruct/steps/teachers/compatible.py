"""A lean client for any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio.

On such a server the client can become the bottleneck, so it is one aiohttp session and two typed
codecs: about an eighth of the processor time a call costs through an SDK. Several servers of one
model are one teacher: see `fleet`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from selfinstruct.core.errors import FaultKind, TeacherError, TeacherFault, UserError
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import Policy, host_of, is_loopback
from selfinstruct.steps.teachers import faults, limits, replies, templates
from selfinstruct.steps.teachers.fleet import Fleet, Member
from selfinstruct.steps.teachers.keys import read_key

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

LARGEST_REPLY = 32 * 2**20
# uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) hang up after 5 idle seconds; we go first, so
# that a request does not meet a closing connection.
KEEP_ALIVE_S = 4.0
CONNECT_S = 20.0
# A server that has begun to reply goes on within this many seconds. Some send the headers at once
# and the body when the model is done, so it is as long as a reply may take to be written.
STALL_S = 60.0

_encode = msgspec.json.Encoder().encode


class CompatibleTeacher:
    """A `core.types.Teacher` that speaks OpenAI's protocol over HTTP by itself.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: the model's name as the server knows it.
        base_url: the server's address up to and with ``/v1``, or those of several servers.
        key_variable: the environment variable that holds the key; none is sent where None, and
            a server on this machine does without.
        key_file: a file that holds the key, if any; it goes before the variable.
        key: the key itself, for a server that this process started.
        concurrency: connections at most.
        timeout_s: seconds from sending to the last byte.
        stall_s: seconds without a byte, once the reply has begun.
        policy: where the run may connect to; checked when the teacher starts.
    """

    def __init__(
        self,
        *,
        id: str,
        model: str,
        base_url: str | Sequence[str],
        key_variable: str | None = None,
        key_file: str | None = None,
        key: str = "",
        concurrency: int = 16,
        timeout_s: float = 120.0,
        stall_s: float = STALL_S,
        policy: Policy | None = None,
    ) -> None:
        self.id = id
        self.model = model
        bases = [base_url] if isinstance(base_url, str) else base_url
        self.fleet = Fleet([base.rstrip("/") for base in bases])
        self._key_variable = key_variable
        self._key_file = key_file
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._policy = policy or Policy()
        self._secret = key
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self.limits: limits.Limits | None = None
        """What the last reply's headers said about rate limits. They are a server's own, so those
        of a fleet say nothing about the teacher."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    async def start(self) -> None:
        """Open the session. Raises `UserError` for a missing key, `PrivacyError` for the host."""
        import aiohttp

        bases = [member.base for member in self.fleet.members]
        for base in bases:
            self._policy.check_url(base, "teacher.base_url")
        if self._key_variable is not None or self._key_file is not None:
            remote = not all(is_loopback(host_of(base)) for base in bases)
            self._secret = read_key(self._key_variable, needed=remote, file=self._key_file)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            # Names are looked up by Python's socket module, which the privacy guard can see.
            connector=aiohttp.TCPConnector(
                limit=self._concurrency,
                keepalive_timeout=KEEP_ALIVE_S,
                resolver=aiohttp.ThreadedResolver(),
            ),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=all(may_use_proxy(base, self._policy) for base in bases),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`."""
        began = time.perf_counter()
        path = "/chat/completions" if request.messages else "/completions"
        reply = await self._send(path, _encode(request_body(request)))
        latency_ms = (time.perf_counter() - began) * 1000
        return replies.read(reply, request, latency_ms, secret=self._secret)

    def renew_key(self) -> bool:
        """Read the key again; whether it is another one."""
        if self._key_variable is None and self._key_file is None:
            return False
        try:
            key = read_key(self._key_variable, needed=True, file=self._key_file)
        except UserError:  # gone or half written: the server's refusal says more
            return False
        if key == self._secret or self._session is None:
            return False
        self._secret = key
        self._session.headers["Authorization"] = f"Bearer {key}"
        return True

    async def user_header(self) -> str:
        """See `core.types.Teacher`; asks llama.cpp's or vLLM's own endpoints beside ``/v1``."""

        async def post(path: str, body: dict[str, Any]) -> bytes:
            return await self._send(f"/{path}", _encode(body), beside=True)

        try:
            return await templates.user_header(post, self.model)
        except TeacherFault as fault:
            raise TeacherError(f"teacher {self.id}: no chat template: {fault.message}") from fault

    async def _send(self, path: str, body: bytes, *, beside: bool = False) -> bytes:
        """Post to a server of the fleet; to another where one cannot even be connected to."""
        tried: list[Member] = []
        while True:
            member = self.fleet.take(tried)
            base = member.base.removesuffix("/v1") if beside else member.base
            fault: TeacherFault | None = None
            try:
                return await self._post(base + path, body)
            except TeacherFault as raised:
                fault = raised
                unsent = fault.kind == "connection" and fault.billed == "no"
                if not unsent or not self.fleet.others([*tried, member]):
                    raise
            except asyncio.CancelledError:  # the deadline outside, or the end of the run
                fault = TeacherFault("timeout", "cancelled")
                raise
            finally:
                self.fleet.done(member, fault)
            tried.append(member)

    async def _post(self, address: str, body: bytes) -> bytes:
        """The body of a reply with status 200; everything else is a `TeacherFault`."""
        import aiohttp

        if self._session is None:
            raise RuntimeError("the teacher is called before it is started")
        status = 0
        try:
            async with self._session.post(
                self._url(address), data=body, allow_redirects=False
            ) as response:
                status, headers = response.status, response.headers
                if len(self.fleet.members) == 1:
                    self.limits = limits.read(headers)
                reply = await _read(response, self._stall_s)
                if status == 200:
                    return reply
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TeacherFault("connection", self._clean(error)) from None
        except TimeoutError:
            message = f"no complete reply within {self._timeout_s:g} s"
            raise TeacherFault("timeout", message, billed="maybe") from None
        except (aiohttp.ClientError, OSError) as error:
            # A reply that began and broke off was worked on; before that nobody can tell.
            kind: FaultKind = "bad_reply" if status == 200 else "connection"
            raise TeacherFault(kind, self._clean(error), billed="maybe") from None
        raise faults.from_status(status, reply, headers, secret=self._secret)

    def _url(self, address: str) -> URL:
        url = self._urls.get(address)
        if url is None:
            from yarl import URL

            url = self._urls[address] = URL(address)
        return url

    def _clean(self, error: Exception) -> str:
        return faults.clean(str(error) or type(error).__name__, self._secret)


def may_use_proxy(base_url: str, policy: Policy) -> bool:
    """Whether the environment's proxy may be used: not for this machine, nor by a local run.

    A proxy is another host that reads everything.
    """
    return not policy.local and not is_loopback(host_of(base_url))


def request_body(request: Request) -> dict[str, Any]:
    """The body of a chat or completions call, as OpenAI's protocol has it."""
    sampling = request.sampling
    body: dict[str, Any] = {"model": request.model, "max_tokens": sampling.max_tokens}
    if request.messages:
        body["messages"] = request.messages
    else:
        body["prompt"] = request.prompt
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = sampling.stop
    if sampling.schema is not None:
        body["response_format"] = response_format(sampling.schema)
    body.update(sampling.extra)
    if None in sampling.extra.values():  # a field that this server does not take
        body = {name: value for name, value in body.items() if value is not None}
    return body


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's way to constrain a reply to a JSON schema."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": schema},
    }


async def _read(response: aiohttp.ClientResponse, stall_s: float) -> bytes:
    """The whole body, decompressed; a fault where it passes `LARGEST_REPLY` or stands still."""
    content = response.content
    if content.is_eof() and content.total_bytes <= LARGEST_REPLY:
        return await content.read()  # it came whole with the headers, as most do
    chunks: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_s) as patience:
            async for chunk in content.iter_any():
                patience.reschedule(loop.time() + stall_s)
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST_REPLY:
                    response.close()
                    message = f"a reply of more than {LARGEST_REPLY >> 20} MB"
                    raise TeacherFault("bad_reply", message, billed="yes", status=response.status)
    except TimeoutError:
        raise stalled(stall_s) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def stalled(stall_s: float) -> TeacherFault:
    """The fault of a reply that began and stood still."""
    message = f"the reply stood still for {stall_s:g} s"
    return TeacherFault("timeout", message, billed="maybe")
