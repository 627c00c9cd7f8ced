"""A lean client for any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio.

On such a server the client can become the bottleneck, so it is a small HTTP client of our own
(`wire`) and two typed codecs: a fraction of the processor time that a call costs through an SDK.
Several servers of one model are one teacher: see `fleet`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from selfinstruct import __version__
from selfinstruct.core.errors import TeacherError, TeacherFault, UserError
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import Policy, host_of, is_loopback
from selfinstruct.steps.teachers import faults, limits, replies, templates
from selfinstruct.steps.teachers.fleet import Fleet, Member
from selfinstruct.steps.teachers.keys import read_key
from selfinstruct.steps.teachers.proxied import Proxied, proxy_for
from selfinstruct.steps.teachers.wire import STALL_S, Wire

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
        self._clients: dict[str, Wire | Proxied] = {}  # by address; those without a proxy share one
        self.limits: limits.Limits | None = None
        """What the last reply's headers said about rate limits. They are a server's own, so those
        of a fleet say nothing about the teacher."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    async def start(self) -> None:
        """Get ready. Raises `UserError` for a missing key, `PrivacyError` for the host."""
        bases = [member.base for member in self.fleet.members]
        for base in bases:
            self._policy.check_url(base, "teacher.base_url")
        if self._key_variable is not None or self._key_file is not None:
            remote = not all(is_loopback(host_of(base)) for base in bases)
            self._secret = read_key(self._key_variable, needed=remote, file=self._key_file)
        headers = {
            "User-Agent": f"selfinstruct/{__version__}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        connections, times = self._concurrency, (self._timeout_s, self._stall_s)
        direct = Wire(headers, connections, *times)
        for base in bases:
            proxy = proxy_for(base, self._policy)
            self._clients[base] = Proxied(headers, proxy, connections, *times) if proxy else direct

    async def close(self) -> None:
        """Close the connections."""
        clients, self._clients = set(self._clients.values()), {}
        for client in clients:
            await client.close()

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
        if key == self._secret or not self._clients:
            return False
        self._secret = key
        for client in self._clients.values():
            client.set_header("Authorization", f"Bearer {key}")
        return True

    async def user_header(self) -> str:
        """See `core.types.Teacher`; asks llama.cpp's or vLLM's own endpoints beside ``/v1``."""

        async def post(path: str, body: dict[str, Any]) -> bytes:
            return await self.post_beside(path, _encode(body))

        try:
            return await templates.user_header(post, self.model)
        except TeacherFault as fault:
            raise TeacherError(f"teacher {self.id}: no chat template: {fault.message}") from fault

    async def post_beside(self, path: str, body: bytes) -> bytes:
        """The reply of one of the server's own endpoints, beside ``/v1``. Raises `TeacherFault`."""
        return await self._send(f"/{path}", body, beside=True)

    async def _send(self, path: str, body: bytes, *, beside: bool = False) -> bytes:
        """Post to a server of the fleet; to another where one cannot even be connected to."""
        tried: list[Member] = []
        while True:
            member = self.fleet.take(tried)
            url = (member.base.removesuffix("/v1") if beside else member.base) + path
            fault: TeacherFault | None = None
            try:
                return await self._post(member, url, body)
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

    async def _post(self, member: Member, url: str, body: bytes) -> bytes:
        """The body of a reply with status 200; everything else is a `TeacherFault`."""
        client = self._clients.get(member.base)
        if client is None:
            raise RuntimeError("the teacher is called before it is started")
        try:
            status, headers, reply = await client.post(url, body)
        except TeacherFault as fault:
            fault.message = faults.clean(fault.message, self._secret)
            raise
        if len(self.fleet.members) == 1:
            self.limits = limits.read(headers)
        if status != 200:
            raise faults.from_status(status, reply, headers, secret=self._secret)
        return reply


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
