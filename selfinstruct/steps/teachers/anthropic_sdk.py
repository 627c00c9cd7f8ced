"""Anthropic through its official SDK."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from selfinstruct.core.errors import MissingDependency, TeacherError, TeacherFault
from selfinstruct.core.types import Completion, FinishReason, Request, Usage
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers import faults, limits, sdk
from selfinstruct.steps.teachers.replies import estimated
from selfinstruct.steps.teachers.wire import STALL_S

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

BASE_URL = "https://api.anthropic.com"

_FINISH: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class AnthropicTeacher:
    """A `core.types.Teacher` on ``anthropic.AsyncAnthropic``.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: the model's name as the provider knows it.
        base_url: the API's address, without ``/v1``.
        key_variable: the environment variable that holds the key.
        key_file: a file that holds the key, if any; it goes before the variable.
        concurrency: connections at most.
        timeout_s: seconds from sending to the last byte.
        stall_s: seconds without a byte, once the reply has begun.
        policy: where the run may connect to; checked when the teacher starts.
    """

    # Where the SDK's client keeps the key.
    _key_attribute = "api_key"

    def __init__(
        self,
        *,
        id: str,
        model: str,
        base_url: str = BASE_URL,
        key_variable: str = "ANTHROPIC_API_KEY",
        key_file: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 120.0,
        stall_s: float = STALL_S,
        policy: Policy | None = None,
    ) -> None:
        self.id = id
        self.model = model
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._key_variable = key_variable
        self._key_file = key_file
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._policy = policy or Policy()
        self._secret = ""
        self.limits: limits.Limits | None = None
        """What the last reply's headers said about rate limits."""
        self._client: AsyncAnthropic | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    async def start(self) -> None:
        """Make the client. Raises `UserError` for a missing key, `PrivacyError` for the host."""
        try:
            import anthropic
        except ImportError as error:
            purpose = "a teacher of kind anthropic"
            raise MissingDependency("anthropic", "anthropic", purpose) from error
        self._policy.check_url(self._base_url, "teacher.base_url")
        self._secret = sdk.key_for(self._key_variable, self._base_url, self._key_file)
        options = sdk.client_options(
            self._base_url, self._concurrency, self._timeout_s, self._policy
        )
        self._client = anthropic.AsyncAnthropic(
            api_key=self._secret,
            base_url=self._base_url,
            max_retries=0,
            timeout=options["timeout"],
            http_client=anthropic.DefaultAioHttpClient(**options),
            open_telemetry=False,
        )

    @property
    def client(self) -> AsyncAnthropic:
        """The SDK's client. Raises RuntimeError before `start`."""
        if self._client is None:
            raise RuntimeError("the teacher is called before it is started")
        return self._client

    @property
    def secret(self) -> str:
        """The key, for blotting it out of messages."""
        return self._secret

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`."""
        import anthropic

        client = self.client
        if not request.messages:
            raise TeacherFault("bad_request", "Anthropic takes messages, not a raw prompt")
        began = time.perf_counter()
        call = client.messages.with_streaming_response.create(**_arguments(request))
        reply = await sdk.fetch(
            call,
            self._timeout_s,
            self._secret,
            anthropic.AnthropicError,
            stall_s=self._stall_s,
            heard=self._heard,
        )
        return read_message(reply, request, (time.perf_counter() - began) * 1000, self._secret)

    def renew_key(self) -> bool:
        """Read the key again; whether it is another one."""
        key = sdk.renewed_key(self._secret, self._key_variable, self._key_file)
        if not self._secret or key is None or self._client is None:
            return False
        self._secret = key
        setattr(self._client, self._key_attribute, key)
        return True

    def _heard(self, headers: Mapping[str, str]) -> None:
        self.limits = limits.read(headers)

    async def user_header(self) -> str:
        """Raises `TeacherError`: Anthropic takes no raw prompt."""
        raise TeacherError(
            f"teacher {self.id}: the strategy magpie needs a server of your own "
            "(kind compatible or local); Anthropic takes no raw prompt"
        )


def request_body(request: Request) -> dict[str, Any]:
    """The body that the SDK sends for a request, for places that take it without the SDK."""
    body = _arguments(request)
    extra: dict[str, Any] = body.pop("extra_body", {})
    return body | extra


def _arguments(request: Request) -> dict[str, Any]:
    """What ``messages.create`` is called with. Anthropic has no sampling seed."""
    sampling = request.sampling
    extra = dict(sampling.extra)
    # The SDK has no argument for these, and newer models take none but the default, which is 1.
    if sampling.temperature is not None and sampling.temperature != 1.0:
        extra.setdefault("temperature", sampling.temperature)
    if sampling.top_p is not None and sampling.top_p != 1.0:
        extra.setdefault("top_p", sampling.top_p)
    given: dict[str, Any] = {
        "model": request.model,
        "max_tokens": sampling.max_tokens,
        "messages": [
            {"role": m.role, "content": m.content} for m in request.messages if m.role != "system"
        ],
    }
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    if system:
        # The same for every call of a run, so it is worth caching where it is long enough; shorter
        # ones the provider leaves uncached, and bills as such.
        block = {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}
        given["system"] = [block]
    if sampling.stop:
        given["stop_sequences"] = list(sampling.stop)
    if sampling.schema is not None:
        given["output_config"] = {"format": {"type": "json_schema", "schema": sampling.schema}}
    if extra:
        given["extra_body"] = extra
    return given


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Reply(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Reply).decode


def read_message(body: bytes, request: Request, latency_ms: float, secret: str) -> Completion:
    """The completion in a reply's body. Raises `TeacherFault` "bad_reply" where it is none."""
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"status 200, but the body is no completion: {error}"
        raise TeacherFault("bad_reply", message, billed="maybe", status=200) from None
    if reply.error is not None:
        raise faults.in_a_good_reply(reply.error, secret=secret)
    if reply.content is None:
        raise TeacherFault("bad_reply", "a reply without content", billed="maybe", status=200)
    text = "".join(block.text or "" for block in reply.content if block.type == "text")
    return Completion(
        request_id=request.id,
        text=text,
        finish=_FINISH.get(reply.stop_reason or "", "stop"),
        usage=_usage(reply.usage) if reply.usage else estimated(request, text),
        model=reply.model or request.model,
        latency_ms=latency_ms,
    )


def _usage(usage: _Usage) -> Usage:
    """Anthropic counts cached input apart; ours counts all of it."""
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return Usage(
        input=usage.input_tokens + cached + written,
        output=usage.output_tokens,
        cached=cached,
        cache_write=written,
        reasoning=(details.thinking_tokens or 0) if details else 0,
    )
