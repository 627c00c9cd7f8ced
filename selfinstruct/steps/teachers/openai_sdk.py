"""OpenAI through its official SDK; other hosts of the same protocol through `base_url`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Unpack

from selfinstruct.core.errors import MissingDependency
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.teachers import replies
from selfinstruct.steps.teachers.compatible import response_format
from selfinstruct.steps.teachers.sdk_teacher import SdkOptions, SdkTeacher

if TYPE_CHECKING:
    from openai import AsyncOpenAI

BASE_URL = "https://api.openai.com/v1"


class OpenAITeacher(SdkTeacher["AsyncOpenAI"]):
    """OpenAI, on ``openai.AsyncOpenAI``.

    Args:
        base_url: the API's address up to and with ``/v1``.
        key_variable: the environment variable that holds the key.
        options: those of `SdkTeacher`.
    """

    kind = "openai"

    def __init__(
        self,
        *,
        base_url: str = BASE_URL,
        key_variable: str = "OPENAI_API_KEY",
        **options: Unpack[SdkOptions],
    ) -> None:
        super().__init__(base_url=base_url, key_variable=key_variable, **options)

    def _library(self) -> Any:
        try:
            import openai
        except ImportError as error:
            purpose = f"a teacher of kind {self.kind}"
            raise MissingDependency("openai", "openai", purpose) from error
        return openai

    def _connected(self, library: Any, shared: dict[str, Any]) -> AsyncOpenAI:
        client: AsyncOpenAI = library.AsyncOpenAI(
            api_key=self._secret, base_url=self._base_url, **shared
        )
        return client

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`."""
        import openai

        client = self.client
        began = time.perf_counter()
        api: Any = client.chat.completions if request.messages else client.completions
        call = api.with_streaming_response.create(**_arguments(request))
        reply = await self._fetch(call, openai.OpenAIError)
        latency_ms = (time.perf_counter() - began) * 1000
        return replies.read(reply, request, latency_ms, secret=self._secret)


def request_body(request: Request) -> dict[str, Any]:
    """The body that the SDK sends for a request, for places that take it without the SDK."""
    body = _arguments(request)
    extra: dict[str, Any] = body.pop("extra_body", {})
    return body | extra


def _arguments(request: Request) -> dict[str, Any]:
    """What ``create`` is called with."""
    sampling = request.sampling
    given: dict[str, Any] = {
        "model": request.model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "extra_body": sampling.extra or None,
    }
    if request.messages:
        given["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
        given["max_completion_tokens"] = sampling.max_tokens
    else:
        given["prompt"] = request.prompt
        given["max_tokens"] = sampling.max_tokens
    if sampling.schema is not None:
        given["response_format"] = response_format(sampling.schema)
    return {name: value for name, value in given.items() if value is not None}
