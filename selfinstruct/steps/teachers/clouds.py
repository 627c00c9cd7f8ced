"""The clouds' ways to hosted models: OpenAI's on Azure, Claude on Bedrock and on Vertex.

The official SDKs' own clients for them differ from the plain ones in address, headers and key;
requests and replies are the same, so each teacher here only makes another client.
"""

from __future__ import annotations

import asyncio
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Unpack

from selfinstruct.core.errors import MissingDependency, TeacherFault, UserError
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import host_of, is_loopback
from selfinstruct.steps.teachers import faults, sdk
from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher
from selfinstruct.steps.teachers.keys import read_key
from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher
from selfinstruct.steps.teachers.sdk_teacher import SdkOptions

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from google.auth.credentials import Credentials
    from openai import AsyncOpenAI

AZURE_KEY = "AZURE_OPENAI_API_KEY"
BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"
BEDROCK_REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
VERTEX_REGION = ("CLOUD_ML_REGION",)
VERTEX_PROJECT = ("ANTHROPIC_VERTEX_PROJECT_ID", "GOOGLE_CLOUD_PROJECT")
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class AzureTeacher(OpenAITeacher):
    """OpenAI's models on Azure, on ``openai.AsyncAzureOpenAI``.

    Args:
        api_version: the API's version, such as ``2024-10-21``.
        deployment: the deployment's name.
        options: those of `OpenAITeacher`; `base_url` is the resource's address, without a path.
    """

    kind = "azure"

    def __init__(
        self,
        *,
        api_version: str,
        deployment: str,
        base_url: str,
        key_variable: str = AZURE_KEY,
        **options: Unpack[SdkOptions],
    ) -> None:
        super().__init__(base_url=base_url, key_variable=key_variable, **options)
        self._api_version = api_version
        self._deployment = deployment

    def _connected(self, library: Any, shared: dict[str, Any]) -> AsyncOpenAI:
        client: AsyncOpenAI = library.AsyncAzureOpenAI(
            api_key=self._secret,
            api_version=self._api_version,
            azure_endpoint=self._base_url.rstrip("/").removesuffix("/openai"),
            azure_deployment=self._deployment,
            **shared,
        )
        return client


class BedrockTeacher(AnthropicTeacher):
    """Claude on Amazon Bedrock, on ``anthropic.AsyncAnthropicBedrock``.

    Calls carry a Bedrock API key where `key_variable` holds one, and are signed with the usual AWS
    credentials (environment, profile, role) otherwise.

    Args:
        region: such as ``us-east-1``.
        options: those of `AnthropicTeacher`.
    """

    kind = "bedrock"

    def __init__(
        self,
        *,
        region: str,
        base_url: str,
        key_variable: str = BEDROCK_KEY,
        **options: Unpack[SdkOptions],
    ) -> None:
        super().__init__(base_url=base_url, key_variable=key_variable, **options)
        self._region = region

    async def _key(self) -> str:
        """An API key, or "" where AWS credentials sign. Raises `UserError` without either."""
        key = read_key(self._key_variable, needed=False, file=self._key_file)
        if not key and is_loopback(host_of(self._base_url)):
            return sdk.NO_KEY
        if not key:
            await asyncio.to_thread(_check_aws, self._key_variable)
        return key

    def _connected(self, library: Any, shared: dict[str, Any]) -> AsyncAnthropic:
        client: AsyncAnthropic = library.AsyncAnthropicBedrock(
            api_key=self._secret or None,
            aws_region=self._region,
            base_url=self._base_url,
            open_telemetry=False,
            **shared,
        )
        return client


class VertexTeacher(AnthropicTeacher):
    """Claude on Google Cloud's Vertex AI, on ``anthropic.AsyncAnthropicVertex``.

    Calls carry the access token in `key_variable` where one is named (they last an hour), and
    otherwise tokens of the application default credentials, which are renewed as needed.

    Args:
        region: such as ``global`` or ``europe-west1``.
        project: the project's id.
        key_variable: the environment variable that holds an access token, "" for none.
        options: those of `AnthropicTeacher`.
    """

    kind = "vertex"
    _key_attribute = "access_token"

    def __init__(
        self,
        *,
        region: str,
        project: str,
        base_url: str,
        key_variable: str,
        **options: Unpack[SdkOptions],
    ) -> None:
        super().__init__(base_url=base_url, key_variable=key_variable, **options)
        self._region = region
        self._project = project
        self._named_key = bool(key_variable or options.get("key_file"))
        self._credentials: Credentials | None = None
        # `AnthropicTeacher` takes the version off, which here belongs to the path.
        self._base_url = base_url.rstrip("/")

    async def _key(self) -> str:
        """An access token, or "" where Google's credentials make them. Raises `UserError`."""
        if self._named_key or is_loopback(host_of(self._base_url)):
            return await super()._key()
        self._credentials = await asyncio.to_thread(_google_credentials)
        return ""

    def _connected(self, library: Any, shared: dict[str, Any]) -> AsyncAnthropic:
        client: AsyncAnthropic = library.AsyncAnthropicVertex(
            region=self._region,
            project_id=self._project,
            access_token=self._secret or None,
            credentials=self._credentials,
            base_url=self._base_url,
            open_telemetry=False,
            **shared,
        )
        return client

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`, also where no new access token is to be had."""
        if find_spec("google") is None or find_spec("google.auth") is None:
            return await super().__call__(request)
        from google.auth.exceptions import GoogleAuthError, TransportError

        try:
            return await super().__call__(request)
        except TransportError as error:
            raise TeacherFault("connection", faults.clean(str(error), self._secret)) from None
        except GoogleAuthError as error:
            raise TeacherFault("unauthorized", faults.clean(str(error), self._secret)) from None


def bedrock_url(region: str) -> str:
    """Where Bedrock is in a region."""
    return f"https://bedrock-runtime.{region}.amazonaws.com"


def vertex_url(region: str) -> str:
    """Where Vertex AI is for a region, a continent (us, eu) or everywhere (global)."""
    if region == "global":
        return "https://aiplatform.googleapis.com/v1"
    if region in ("us", "eu"):
        return f"https://aiplatform.{region}.rep.googleapis.com/v1"
    return f"https://{region}-aiplatform.googleapis.com/v1"


def setting(given: str | None, key: str, variables: tuple[str, ...]) -> str:
    """A setting of the recipe, or the environment's. Raises `UserError` where neither has it."""
    for value in (given, *(os.environ.get(variable) for variable in variables)):
        if value:
            return value
    raise UserError(f"give teacher.{key} in the recipe, or set {variables[0]}")


def regional(kind: str, model: str, region: str | None) -> bool:
    """Whether calls go to a cloud's regional endpoint, which costs more than the global one.

    Bedrock's global inference profiles begin with ``global.``; Vertex has a region of that name.
    """
    if kind == "bedrock":
        return not model.startswith("global.")
    return kind == "vertex" and (region or os.environ.get(VERTEX_REGION[0])) != "global"


def _check_aws(variable: str) -> None:
    """Raises where no call could be signed."""
    if find_spec("boto3") is None:
        raise MissingDependency("boto3", "bedrock", f"Bedrock without an API key in {variable}")
    import boto3

    if boto3.Session().get_credentials() is None:
        raise UserError(
            "no AWS credentials were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, or a Bedrock API key in {variable}"
        )


def _google_credentials() -> Credentials:
    """The application default credentials. Raises `UserError` where there are none."""
    if find_spec("google") is None or find_spec("google.auth") is None:
        raise MissingDependency("google-auth", "vertex", "a teacher of kind vertex")
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
    except DefaultCredentialsError:
        raise UserError(
            "no Google credentials were found: run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS, or name a variable that holds an access token with "
            "teacher.api_key_env"
        ) from None
    return credentials
