"""The sections `teacher` and `prices`: who answers, and what that costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, model_validator

from selfinstruct.core.sections.strict import Strict


class Price(Strict):
    """Dollars per million tokens, as decimals."""

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cached: Decimal | None = Field(default=None, ge=0)
    """Cached input; the input price where not given."""
    cache_write: Decimal | None = Field(default=None, ge=0)
    """Writing to the provider's cache; the input price where not given."""
    batch: Decimal = Field(default=Decimal(1), gt=0, le=1)
    """What the batch API costs of these prices: 0.5 for half."""


# Settings of a teacher that only some kinds have; with another kind they are an error.
_OF_KINDS = {
    "api_version": ("azure",),
    "deployment": ("azure",),
    "region": ("bedrock", "vertex"),
    "project": ("vertex",),
    "args": ("vllm",),
}


class TeacherConfig(Strict):
    """A model that answers requests."""

    kind: Literal[
        "openai",
        "anthropic",
        "azure",
        "bedrock",
        "vertex",
        "compatible",
        "local",
        "vllm",
        "scripted",
    ]
    """`openai` and `anthropic` use the official SDKs, `azure` (OpenAI's models), `bedrock` and
    `vertex` (Claude) the same ones; `compatible` is any OpenAI-compatible server; `local` serves a
    GGUF file on this machine and `vllm` a model on its GPUs; `scripted` replays a file, for dry
    runs."""
    model: str = ""
    """The model's name as the server knows it. For `local`: a GGUF file's path, or
    `smollm2-135m-instruct`, which is fetched once. For `vllm`: a model folder or a Hub id. For
    `scripted`: a JSONL file of replies."""
    base_url: str | list[str] | None = None
    """Where the server is, such as `http://localhost:8000/v1`. Required for `compatible`, which
    takes a list of servers of one model too. For `azure`: the resource, such as
    `https://NAME.openai.azure.com`."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key; the key itself is never stored."""
    api_key_file: str | None = None
    """A file that holds the key and nothing else; it goes before `api_key_env`. It is read again
    when the server refuses the key in mid-run, so a key may be renewed."""
    api_version: str | None = None
    """For `azure`: the API's version, such as `2024-10-21`. Required there."""
    deployment: str | None = None
    """For `azure`: the deployment's name; the model's where not given."""
    region: str | None = None
    """For `bedrock` and `vertex`; AWS_REGION or CLOUD_ML_REGION where not given."""
    project: str | None = None
    """For `vertex`: the project; ANTHROPIC_VERTEX_PROJECT_ID where not given."""
    args: list[str] = Field(default_factory=list)
    """For `vllm`: more arguments of `vllm serve`, such as `[--max-model-len, "8192"]`."""
    sha256: str | None = None
    """For `local`: the checksum the GGUF file must have."""
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)
    """Tokens of a reply at most; also what the money cap reserves for each call."""
    concurrency: int = Field(default=16, ge=1, le=4096)
    """Calls in flight at once, at most. A server that is not on this machine gets 8 at first, more
    while all goes well, and fewer when it says "too fast" (429)."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests sent per minute, at most. What the server's own headers allow counts besides."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """The same for tokens, those of prompts and replies together."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds after which an attempt is given up, from sending to the last byte."""
    stall_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds without a byte after which a reply that has begun is given up."""
    patience_s: float = Field(default=300.0, ge=0)
    """Seconds for which a server that has answered before is waited for when it is gone."""
    max_attempts: int = Field(default=8, ge=1)
    """Attempts at one request before it is recorded as failed."""
    context: int = Field(default=4096, ge=512)
    """For `local`: tokens of context per parallel call."""
    threads: int | None = Field(default=None, ge=1)
    """For `local`: processor threads; all but one where not given."""
    gpu_layers: int = -1
    """For `local`: layers put on a GPU where there is one; -1 for all."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More of the request's body, sent as it is. For `compatible`, null leaves a field out that the
    server does not take, such as `{seed: null}`."""

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.kind == "compatible" and not self.base_url:
            raise ValueError(
                "a compatible teacher needs base_url, such as http://localhost:8000/v1"
            )
        if self.kind == "azure" and not (self.base_url and self.api_version):
            raise ValueError(
                "an azure teacher needs base_url, such as https://NAME.openai.azure.com, and "
                "api_version, such as 2024-10-21"
            )
        if not self.model:
            raise ValueError(f"a teacher of kind {self.kind!r} needs model")
        if isinstance(self.base_url, list):
            if self.kind != "compatible":
                raise ValueError("a list of base_url is for a teacher of kind compatible")
            if len(set(self.base_url)) < max(1, len(self.base_url)):
                raise ValueError("base_url names a server twice, or none")
        for name, kinds in _OF_KINDS.items():
            if getattr(self, name) and self.kind not in kinds:
                raise ValueError(f"{name} is for a teacher of kind {' or '.join(kinds)}")
        return self

    @property
    def base_urls(self) -> list[str]:
        """The servers' addresses; none for the kind's own."""
        if isinstance(self.base_url, list):
            return self.base_url
        return [self.base_url] if self.base_url else []

    @property
    def address(self) -> str | None:
        """The only server's address; None for the kind's own."""
        return self.base_url if isinstance(self.base_url, str) else None
