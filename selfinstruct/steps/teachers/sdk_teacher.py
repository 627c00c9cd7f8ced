"""What the teachers on official SDKs are: a key, a client of the SDK, and one attempt at a time.

A provider's teacher says how its library's client is made, and what a request and a reply are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

from selfinstruct.core.errors import TeacherError
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers import limits, sdk
from selfinstruct.steps.teachers.wire import STALL_S

Client = TypeVar("Client")


class SdkOptions(TypedDict):
    """What `SdkTeacher` takes beside the address and the key's variable."""

    id: str
    model: str
    key_file: NotRequired[str | None]
    concurrency: NotRequired[int]
    timeout_s: NotRequired[float]
    stall_s: NotRequired[float]
    policy: NotRequired[Policy | None]


class SdkTeacher(ABC, Generic[Client]):
    """A `core.types.Teacher` on an official SDK.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: the model's name as the provider knows it.
        base_url: the API's address.
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
        base_url: str,
        key_variable: str,
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
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    @abstractmethod
    def _library(self) -> Any:
        """The SDK. Raises `MissingDependency`."""

    async def _key(self) -> str:
        """The key; "" where the client signs calls by itself. Raises `UserError`."""
        return sdk.key_for(self._key_variable, self._base_url, self._key_file)

    @abstractmethod
    def _connected(self, library: Any, shared: dict[str, Any]) -> Client:
        """The SDK's client, which takes `shared` as every client of an SDK does."""

    async def start(self) -> None:
        """Make the client. Raises `UserError` without a key, `PrivacyError` for the host."""
        library = self._library()
        self._policy.check_url(self._base_url, "teacher.base_url")
        self._secret = await self._key()
        options = sdk.client_options(
            self._base_url, self._concurrency, self._timeout_s, self._policy
        )
        shared = {
            "max_retries": 0,
            "timeout": options["timeout"],
            "http_client": library.DefaultAioHttpClient(**options),
        }
        self._client = self._connected(library, shared)

    @property
    def client(self) -> Client:
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
            client: Any = self._client
            await client.close()
            self._client = None

    @abstractmethod
    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`."""

    async def _fetch(
        self, call: AbstractAsyncContextManager[Any], sdk_error: type[Exception]
    ) -> bytes:
        """The body of the reply to `call`; `sdk_error` is the base of the SDK's errors."""
        return await sdk.fetch(
            call,
            self._timeout_s,
            self._secret,
            sdk_error,
            stall_s=self._stall_s,
            heard=self._heard,
        )

    def _heard(self, headers: Mapping[str, str]) -> None:
        self.limits = limits.read(headers)

    def renew_key(self) -> bool:
        """Read the key again; whether it is another one."""
        key = sdk.renewed_key(self._secret, self._key_variable, self._key_file)
        if not self._secret or key is None or self._client is None:
            return False
        self._secret = key
        setattr(self._client, self._key_attribute, key)
        return True

    async def user_header(self) -> str:
        """Raises `TeacherError`: hosted chat models take no raw prompt."""
        raise TeacherError(
            f"teacher {self.id}: the strategy magpie needs a server of your own "
            "(kind compatible or local); hosted chat models take no raw prompt"
        )
