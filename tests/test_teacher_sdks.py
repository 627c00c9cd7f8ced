"""The teachers on official SDKs: what they send, and what they make of a reply."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest

from selfinstruct.core.errors import PrivacyError, TeacherError, TeacherFault, UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Request, Sampling, Teacher, Usage
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.teachers import anthropic_replies, replies
from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher
from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher
from selfinstruct.testing.fake_server import Running

SCHEMA = {
    "type": "object",
    "properties": {"instruction": {"type": "string"}, "output": {"type": "string"}},
    "required": ["instruction", "output"],
    "additionalProperties": False,
}


def ask(**sampling: Any) -> Request:
    return make_request(
        teacher="t",
        model="m-1",
        sampling=Sampling(**{"max_tokens": 400, **sampling}),
        messages=(Message("system", "Be brief."), Message("user", "What is a lighthouse for?")),
        sample=0,
    )


@contextlib.asynccontextmanager
async def started(teacher: Teacher) -> AsyncIterator[Teacher]:
    await teacher.start()
    try:
        yield teacher
    finally:
        await teacher.close()


def openai(server: Running, **options: Any) -> OpenAITeacher:
    return OpenAITeacher(id="t", model="m-1", base_url=f"{server.url}/v1", **options)


def anthropic(server: Running, **options: Any) -> AnthropicTeacher:
    return AnthropicTeacher(id="t", model="m-1", base_url=server.url, **options)


async def test_openai_gets_every_parameter(fake_server: Running) -> None:
    """The body is OpenAI's, with max_completion_tokens and extra parameters as they are."""
    request = ask(
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop=("###",),
        schema=SCHEMA,
        extra={"reasoning_effort": "low"},
    )
    async with started(openai(fake_server)) as teacher:
        completion = await teacher(request)
    assert orjson.loads(fake_server.server.requests[0].body) == {
        "model": "m-1",
        "max_completion_tokens": 400,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is a lighthouse for?"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["###"],
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
        },
    }
    assert set(orjson.loads(completion.text)) == {"instruction", "output"}


async def test_openai_leaves_out_what_is_not_set(fake_server: Running) -> None:
    """Newer models refuse parameters they do not take, so none is sent unasked."""
    async with started(openai(fake_server)) as teacher:
        await teacher(ask())
    body = orjson.loads(fake_server.server.requests[0].body)
    assert set(body) == {"model", "messages", "max_completion_tokens"}


async def test_openai_takes_a_raw_prompt(fake_server: Running) -> None:
    """A raw prompt goes to the completions endpoint."""
    request = make_request(
        teacher="t", model="m-1", sampling=Sampling(max_tokens=50), prompt="Once", sample=0
    )
    async with started(openai(fake_server)) as teacher:
        completion = await teacher(request)
    assert fake_server.server.requests[0].path == "/v1/completions"
    assert completion.text


async def test_anthropic_gets_every_parameter(fake_server: Running) -> None:
    """System messages, stop strings, schema and sampling go where Anthropic has them."""
    request = ask(temperature=0.5, top_p=0.9, seed=7, stop=("###",), schema=SCHEMA)
    async with started(anthropic(fake_server)) as teacher:
        completion = await teacher(request)
    received = fake_server.server.requests[0]
    assert received.path == "/v1/messages"
    assert orjson.loads(received.body) == {
        "model": "m-1",
        "max_tokens": 400,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "What is a lighthouse for?"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["###"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    assert set(orjson.loads(completion.text)) == {"instruction", "output"}


async def test_anthropic_is_not_told_its_own_default(fake_server: Running) -> None:
    """A temperature of 1 is the default, and newer models refuse the parameter."""
    async with started(anthropic(fake_server)) as teacher:
        await teacher(ask(temperature=1.0))
    body = orjson.loads(fake_server.server.requests[0].body)
    assert set(body) == {"model", "messages", "system", "max_tokens"}


async def test_anthropic_takes_large_max_tokens(fake_server: Running) -> None:
    """A large max_tokens with the SDK's own default timeout is sent all the same."""
    async with started(anthropic(fake_server, timeout_s=600)) as teacher:
        completion = await teacher(ask(max_tokens=100_000))
    assert completion.text


async def test_anthropic_takes_no_raw_prompt(fake_server: Running) -> None:
    """A raw prompt will never pass: nothing is sent."""
    request = make_request(
        teacher="t", model="m-1", sampling=Sampling(max_tokens=50), prompt="Once", sample=0
    )
    async with started(anthropic(fake_server)) as teacher:
        with pytest.raises(TeacherFault) as caught:
            await teacher(request)
    assert caught.value.kind == "bad_request"
    assert fake_server.server.stats.calls == 0


@pytest.mark.parametrize("make", [openai, anthropic])
async def test_hosted_teachers_have_no_user_header(fake_server: Running, make: Any) -> None:
    """The strategy that would need it is named."""
    with pytest.raises(TeacherError, match="magpie"):
        await make(fake_server).user_header()


def test_openai_usage_counts_cached_and_reasoning_tokens_as_parts() -> None:
    """Input counts the cached tokens, output the reasoning tokens."""
    body = orjson.dumps(
        {
            "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
        }
    )
    usage = replies.read(body, ask(), 1.0).usage
    assert usage == Usage(input=100, output=50, cached=64, cache_write=8, reasoning=40)


def test_anthropic_usage_is_made_to_count_all_input() -> None:
    """Anthropic counts cached input apart; ours counts all of it in input."""
    usage = msgspec.json.decode(
        b'{"input_tokens": 10, "output_tokens": 50, "cache_read_input_tokens": 64,'
        b' "cache_creation_input_tokens": 8, "output_tokens_details": {"thinking_tokens": 40}}',
        type=anthropic_replies._Usage,
    )
    expected = Usage(input=82, output=50, cached=64, cache_write=8, reasoning=40)
    assert anthropic_replies._usage(usage) == expected


def test_content_in_parts_is_joined() -> None:
    """Some servers send the text as a list of parts, thinking among them."""
    parts = [
        {"type": "thinking", "text": "hm"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    body = orjson.dumps({"choices": [{"message": {"content": parts}}]})
    assert replies.read(body, ask(), 1.0).text == "ab"


@pytest.mark.parametrize(
    ("make", "variable"), [(openai, "OPENAI_API_KEY"), (anthropic, "ANTHROPIC_API_KEY")]
)
async def test_the_key_comes_from_the_environment(
    start_fake_server: Any, monkeypatch: pytest.MonkeyPatch, make: Any, variable: str
) -> None:
    """The key is sent, a wrong one is told apart, and no text of ours holds it."""
    monkeypatch.setenv(variable, "secret-of-mine-123")
    async with started(make(start_fake_server(key="secret-of-mine-123"))) as teacher:
        assert (await teacher(ask())).text
        assert "secret-of-mine" not in repr(teacher)
    async with started(make(start_fake_server(key="another"))) as teacher:
        with pytest.raises(TeacherFault) as caught:
            await teacher(ask())
    assert caught.value.kind == "unauthorized"
    assert "secret-of-mine" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "variable"),
    [(OpenAITeacher, "OPENAI_API_KEY"), (AnthropicTeacher, "ANTHROPIC_API_KEY")],
)
async def test_a_missing_key_is_one_line_naming_the_variable(
    monkeypatch: pytest.MonkeyPatch, kind: Any, variable: str
) -> None:
    """The provider itself is not asked without a key."""
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=rf"export {variable}=\.\.\."):
        await kind(id="t", model="m").start()


@pytest.mark.parametrize("kind", [OpenAITeacher, AnthropicTeacher])
async def test_the_guard_reaches_into_the_sdks(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """A client built before the policy applied is still refused, as a privacy error."""
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(variable, "none")
    teacher = kind(id="t", model="m", base_url="http://192.0.2.1/v1", timeout_s=5)
    async with started(teacher):
        with enforce(Policy(local=True)), pytest.raises(PrivacyError, match=r"192\.0\.2\.1"):
            await teacher(ask())
