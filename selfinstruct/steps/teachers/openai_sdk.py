"""OpenAI through its official SDK; other hosts of the same protocol through `base_url`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from selfinstruct.core.errors import MissingDependency, TeacherError
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers import limits, replies, sdk
from selfinstruct.steps.teachers.compatible import response_format
from selfinstruct.steps.teachers.wire import STALL_S

if TYPE_CHECKING:
    from openai import AsyncOpenAI

BASE_URL = "https://api.openai.com/v1"


class OpenAITeacher:
    """A `core.types.Teacher` on ``openai.AsyncOpenAI``.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: the model's name as the provider knows it.
        base_url: the API's address up to and with ``/v1``.
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
        key_variable: str = "OPENAI_API_KEY",
        key_file: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 120.0,
        stall_s: float = STALL_S,
        policy: Policy | None = None,
    ) -> None:
        self.id = id
        self.model = model
        self._base_url = base_url
        self._key_variable = key_variable
        self._key_file = key_file
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._policy = policy or Policy()
        self._secret = ""
        self.limits: limits.Limits | None = None
        """What the last reply's headers said about rate limits."""
        self._client: AsyncOpenAI | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    async def start(self) -> None:
        """Make the client. Raises `UserError` for a missing key, `PrivacyError` for the host."""
        try:
            import openai
        except ImportError as error:
            raise MissingDependency("openai", "openai", "a teacher of kind openai") from error
        self._policy.check_url(self._base_url, "teacher.base_url")
        self._secret = sdk.key_for(self._key_variable, self._base_url, self._key_file)
        options = sdk.client_options(
            self._base_url, self._concurrency, self._timeout_s, self._policy
        )
        self._client = openai.AsyncOpenAI(
            api_key=self._secret,
            base_url=self._base_url,
            max_retries=0,
            timeout=options["timeout"],
            http_client=openai.DefaultAioHttpClient(**options),
        )

    @property
    def client(self) -> AsyncOpenAI:
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
        import openai

        client = self.client
        began = time.perf_counter()
        api: Any = client.chat.completions if request.messages else client.completions
        call = api.with_streaming_response.create(**_arguments(request))
        reply = await sdk.fetch(
            call,
            self._timeout_s,
            self._secret,
            openai.OpenAIError,
            stall_s=self._stall_s,
            heard=self._heard,
        )
        latency_ms = (time.perf_counter() - began) * 1000
        return replies.read(reply, request, latency_ms, secret=self._secret)

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
        """Raises `TeacherError`: hosted chat models take no raw prompt."""
        raise TeacherError(
            f"teacher {self.id}: the strategy magpie needs a server of your own "
            "(kind compatible or local); hosted chat models take no raw prompt"
        )


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
