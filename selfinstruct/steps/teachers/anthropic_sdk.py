"""Anthropic through its official SDK."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Unpack

from selfinstruct.core.errors import MissingDependency, TeacherFault
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.teachers.anthropic_replies import read_message
from selfinstruct.steps.teachers.sdk_teacher import SdkOptions, SdkTeacher

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

BASE_URL = "https://api.anthropic.com"


class AnthropicTeacher(SdkTeacher["AsyncAnthropic"]):
    """Anthropic, on ``anthropic.AsyncAnthropic``.

    Args:
        base_url: the API's address, without ``/v1``.
        key_variable: the environment variable that holds the key.
        options: those of `SdkTeacher`.
    """

    kind = "anthropic"

    def __init__(
        self,
        *,
        base_url: str = BASE_URL,
        key_variable: str = "ANTHROPIC_API_KEY",
        **options: Unpack[SdkOptions],
    ) -> None:
        base_url = base_url.rstrip("/").removesuffix("/v1")
        super().__init__(base_url=base_url, key_variable=key_variable, **options)

    def _library(self) -> Any:
        try:
            import anthropic
        except ImportError as error:
            purpose = f"a teacher of kind {self.kind}"
            raise MissingDependency("anthropic", self.kind, purpose) from error
        return anthropic

    def _connected(self, library: Any, shared: dict[str, Any]) -> AsyncAnthropic:
        client: AsyncAnthropic = library.AsyncAnthropic(
            api_key=self._secret, base_url=self._base_url, open_telemetry=False, **shared
        )
        return client

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`."""
        import anthropic

        client = self.client
        if not request.messages:
            raise TeacherFault("bad_request", "Anthropic takes messages, not a raw prompt")
        began = time.perf_counter()
        call = client.messages.with_streaming_response.create(**_arguments(request))
        reply = await self._fetch(call, anthropic.AnthropicError)
        return read_message(reply, request, (time.perf_counter() - began) * 1000, self._secret)


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
