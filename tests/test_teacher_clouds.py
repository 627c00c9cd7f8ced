"""Azure, Bedrock and Vertex: the SDKs' own clients against a server that has the clouds' paths."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from selfinstruct.core.errors import (
    MissingDependency,
    PrivacyError,
    TeacherError,
    TeacherFault,
    UserError,
)
from selfinstruct.core.ids import make_request
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Message, Request, Sampling, Teacher
from selfinstruct.engine.routes import is_local, rate_of
from selfinstruct.steps.costs.pricing import rate_for
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers import clouds
from selfinstruct.steps.teachers.build import make_teacher
from selfinstruct.testing.clouds import CloudServer
from selfinstruct.testing.fake_server import Options, Running, listening

pytest.importorskip("openai")
pytest.importorskip("anthropic")

HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
CLOUDS: dict[str, dict[str, Any]] = {
    "azure": {"model": "gpt-4.1-mini", "api_version": "2024-10-21", "deployment": "my-mini"},
    "bedrock": {"model": HAIKU, "region": "us-east-1"},
    "vertex": {"model": "claude-haiku-4-5@20251001", "region": "global", "project": "my-project"},
}
KEYS = {"azure": clouds.AZURE_KEY, "bedrock": clouds.BEDROCK_KEY, "vertex": "VERTEX_TOKEN"}


@pytest.fixture(autouse=True)
def no_cloud_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine of the tests has set up must not decide them."""
    for name in (
        *KEYS.values(),
        *("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *(*clouds.BEDROCK_REGION, *clouds.VERTEX_REGION, *clouds.VERTEX_PROJECT),
        *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


def config(kind: str, url: str, **changes: Any) -> TeacherConfig:
    """A section for a cloud at `url`."""
    base = f"{url}/v1" if kind == "vertex" else url
    named = {"api_key_env": KEYS["vertex"]} if kind == "vertex" else {}
    return TeacherConfig.model_validate(
        {"kind": kind, "base_url": base, **CLOUDS[kind], **named, **changes}
    )


@asynccontextmanager
async def cloud(**options: Any) -> AsyncIterator[Running]:
    async with listening(CloudServer(Options(**options))) as server:
        yield server


@asynccontextmanager
async def started(section: TeacherConfig) -> AsyncIterator[Teacher]:
    teacher = make_teacher(section, Policy(local=True))
    await teacher.start()
    try:
        yield teacher
    finally:
        await teacher.close()


def ask(teacher: Teacher, **sampling: Any) -> Request:
    return make_request(
        teacher=teacher.id,
        model=teacher.model,
        sampling=Sampling(**{"max_tokens": 200, "temperature": 0.7, **sampling}),
        messages=(Message("system", "Be brief."), Message("user", "What is a river?")),
        sample=0,
    )


@pytest.mark.parametrize("kind", list(CLOUDS))
async def test_a_cloud_answers_and_is_measured(kind: str) -> None:
    """Text, usage and the model's name come back as from the provider itself."""
    async with cloud() as server, started(config(kind, server.url)) as teacher:
        completion = await teacher(ask(teacher))
    assert completion.text
    assert completion.usage.input > 0
    assert completion.usage.output > 0
    assert not completion.usage.estimated
    assert completion.model == CLOUDS[kind]["model"]
    assert teacher.id == f"{kind}/{CLOUDS[kind]['model']}"


async def test_azure_is_asked_at_its_deployment() -> None:
    """Deployment and version are in the address, and a schema goes out as OpenAI's."""
    async with cloud() as server, started(config("azure", server.url)) as teacher:
        await teacher(ask(teacher, schema={"type": "object"}))
        sent = server.server.requests[0]
    assert sent.path == "/openai/deployments/my-mini/chat/completions"
    assert orjson.loads(sent.body)["response_format"]["type"] == "json_schema"


async def test_bedrock_is_asked_at_its_model() -> None:
    """The model is in the address, dots and colon and all, and not in the body."""
    async with cloud() as server, started(config("bedrock", server.url)) as teacher:
        await teacher(ask(teacher))
        sent = server.server.requests[0]
    assert sent.path == f"/model/{HAIKU}/invoke"
    body = orjson.loads(sent.body)
    assert body["system"][0]["text"] == "Be brief."
    assert body["temperature"] == 0.7


async def test_vertex_is_asked_in_its_project() -> None:
    """Project, region and model are in the address."""
    async with cloud() as server, started(config("vertex", server.url)) as teacher:
        await teacher(ask(teacher))
        sent = server.server.requests[0]
    place = "/v1/projects/my-project/locations/global/publishers/anthropic/models/"
    assert sent.path == f"{place}claude-haiku-4-5@20251001:rawPredict"


@pytest.mark.parametrize("kind", list(CLOUDS))
async def test_the_key_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The usual variable's key is sent; a wrong one is told apart, and no text holds it."""
    monkeypatch.setenv(KEYS[kind], "secret-of-mine-123")
    async with (
        cloud(key="secret-of-mine-123") as server,
        started(config(kind, server.url)) as teacher,
    ):
        assert (await teacher(ask(teacher))).text
    async with cloud(key="another") as server, started(config(kind, server.url)) as teacher:
        with pytest.raises(TeacherFault) as caught:
            await teacher(ask(teacher))
    assert caught.value.kind == "unauthorized"
    assert "secret-of-mine" not in f"{caught.value}{teacher!r}"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("429-after", "rate_limited"), ("529", "overloaded"), ("404", "not_found")],
)
@pytest.mark.parametrize("place", list(CLOUDS))
async def test_faults_are_told_apart_and_not_retried(place: str, fault: str, kind: str) -> None:
    """One call is one attempt, and its fault has the provider's kind."""
    async with cloud(script=(fault,)) as server, started(config(place, server.url)) as teacher:
        with pytest.raises(TeacherFault) as caught:
            await teacher(ask(teacher))
        assert server.server.stats.calls == 1
    assert caught.value.kind == kind


async def test_bedrock_without_credentials_says_what_to_set() -> None:
    """Nothing is sent to AWS before it is known that a call could be signed."""
    section = TeacherConfig(kind="bedrock", model=HAIKU, region="us-east-1")
    expected, said = (
        (UserError, "AWS_PROFILE") if find_spec("boto3") else (MissingDependency, "bedrock")
    )
    with pytest.raises(expected, match=said):
        await make_teacher(section, Policy()).start()


async def test_bedrock_signs_with_aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an API key the call carries AWS's signature, over the address it goes to."""
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-mine")
    monkeypatch.setattr(clouds, "is_loopback", lambda host: False)  # as if it were AWS
    async with cloud() as server, started(config("bedrock", server.url)) as teacher:
        assert (await teacher(ask(teacher))).text
        header = server.server.requests[0].headers["Authorization"]
    assert header.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/bedrock/" in header


async def test_vertex_without_credentials_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """One line names the ways to get credentials, or the extra that reads them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    section = TeacherConfig(kind="vertex", model="m", region="global", project="p")
    expected: type[UserError] = UserError
    try:
        import google.auth  # noqa: F401
    except ImportError:
        expected = MissingDependency
    with pytest.raises(expected) as caught:
        await make_teacher(section, Policy()).start()
    assert "gcloud auth" in str(caught.value) or "selfinstruct[vertex]" in str(caught.value)


@pytest.mark.parametrize(("kind", "missing"), [("bedrock", "region"), ("vertex", "project")])
def test_a_missing_place_is_told_before_anything_starts(kind: str, missing: str) -> None:
    """Region and project come from the recipe or the usual variable."""
    section = config(kind, "http://127.0.0.1:9", **{missing: None})
    with pytest.raises(UserError, match=rf"teacher\.{missing} in the recipe, or set "):
        make_teacher(section, Policy())


@pytest.mark.parametrize(
    ("kind", "host"),
    [
        ("bedrock", r"bedrock-runtime\.us-east-1\.amazonaws\.com"),
        ("vertex", r"aiplatform\.googleapis\.com"),
    ],
)
def test_a_cloud_is_refused_by_a_local_policy(kind: str, host: str) -> None:
    """The host is named although the recipe names none, and is no machine of the user's."""
    section = config(kind, "x", base_url=None)
    with pytest.raises(PrivacyError, match=host):
        make_teacher(section, Policy(local=True))
    assert not is_local(section)


@pytest.mark.parametrize("kind", list(CLOUDS))
async def test_magpie_is_refused(kind: str) -> None:
    """The clouds take no raw prompt either."""
    async with cloud() as server, started(config(kind, server.url)) as teacher:
        with pytest.raises(TeacherError, match="magpie"):
            await teacher.user_header()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"kind": "azure", "model": "m", "base_url": "https://x.example"}, "api_version"),
        ({"kind": "openai", "model": "m", "region": "us-east-1"}, "bedrock or vertex"),
        ({"kind": "openai", "model": "m", "args": ["-tp", "2"]}, "kind vllm"),
        ({"kind": "bedrock", "model": "m", "project": "p"}, "kind vertex"),
    ],
)
def test_settings_of_another_kind_are_errors(section: dict[str, Any], says: str) -> None:
    """No setting is read and ignored."""
    with pytest.raises(ValidationError, match=says):
        TeacherConfig.model_validate(section)


def test_regional_endpoints_cost_a_tenth_more() -> None:
    """The table has the global price; Bedrock's and Vertex's regional endpoints add to it."""
    listed = rate_for("claude-haiku-4-5", {})
    assert listed is not None
    at = {
        "global.anthropic.claude-haiku-4-5-20251001-v1:0": listed.input,
        "us.anthropic.claude-haiku-4-5-20251001-v1:0": listed.input * 11 // 10,
        HAIKU: listed.input * 11 // 10,
    }
    for model, price in at.items():
        section = TeacherConfig(kind="bedrock", model=model, region="us-east-1")
        assert rate_of(section, {}, no_price=False).input == price, model
    for region, price in {"global": listed.input, "us": listed.input * 11 // 10}.items():
        section = TeacherConfig(kind="vertex", model="claude-haiku-4-5", region=region, project="p")
        assert rate_of(section, {}, no_price=False).input == price, region
