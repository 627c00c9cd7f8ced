"""The lean client against a real server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from selfinstruct.core.errors import PrivacyError, TeacherError, TeacherFault, UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Request, Sampling
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.testing.fake_server import Running
from tests.raw_http import serving

START = Callable[..., Running]


def ask(text: str = "What is a lighthouse for?", **sampling: object) -> Request:
    return make_request(
        teacher="compatible/m",
        model="m",
        sampling=Sampling(**{"max_tokens": 400, **sampling}),
        messages=(Message("system", "Be brief."), Message("user", text)),
        sample=0,
    )


@contextlib.asynccontextmanager
async def teacher(url: str, **options: object) -> AsyncIterator[CompatibleTeacher]:
    made = CompatibleTeacher(id="compatible/m", model="m", base_url=f"{url}/v1", **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def fault_of(url: str, request: Request | None = None, **options: object) -> TeacherFault:
    async with teacher(url, **options) as made:
        with pytest.raises(TeacherFault) as caught:
            await made(request or ask())
    return caught.value


async def test_a_chat_reply_becomes_a_completion(fake_server: Running) -> None:
    """Text, finish, usage and model of the reply arrive; the price is left to the dispatcher."""
    request = ask()
    async with teacher(fake_server.url) as made:
        completion = await made(request)
    stats = fake_server.server.stats
    assert completion.request_id == request.id
    assert completion.finish == "stop"
    assert completion.model == "m"
    assert completion.text.startswith("On the lighthouse")
    assert (completion.usage.input, completion.usage.output) == (stats.tokens_in, stats.tokens_out)
    assert not completion.usage.estimated
    assert completion.cost == 0
    assert completion.latency_ms > 0


async def test_every_sampling_parameter_is_sent(fake_server: Running) -> None:
    """Parameters that are set are in the body, extra ones as they are; others are left out."""
    schema = {"type": "object", "properties": {"output": {"type": "string"}}}
    full = ask(
        temperature=0.5, top_p=0.9, seed=7, stop=("###",), schema=schema, extra={"min_p": 0.1}
    )
    async with teacher(fake_server.url) as made:
        await made(full)
        await made(ask())
    sent, plain = (orjson.loads(request.body) for request in fake_server.server.requests)
    assert sent == {
        "model": "m",
        "max_tokens": 400,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is a lighthouse for?"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["###"],
        "min_p": 0.1,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": schema},
        },
    }
    assert set(plain) == {"model", "max_tokens", "messages"}


async def test_null_in_extra_leaves_a_field_out(fake_server: Running) -> None:
    """Gemini's endpoint refuses the seed that every request of a run brings."""
    async with teacher(fake_server.url) as made:
        await made(ask(seed=7, temperature=0.5, extra={"seed": None, "min_p": 0.1}))
    sent = orjson.loads(fake_server.server.requests[0].body)
    assert "seed" not in sent
    assert (sent["temperature"], sent["min_p"]) == (0.5, 0.1)


async def test_a_raw_prompt_goes_to_completions(fake_server: Running) -> None:
    """A request with a prompt instead of messages uses the completions endpoint."""
    raw = make_request(
        teacher="t", model="m", sampling=Sampling(max_tokens=60), prompt="<|user|>", sample=0
    )
    async with teacher(fake_server.url) as made:
        completion = await made(raw)
    received = fake_server.server.requests[0]
    assert received.path == "/v1/completions"
    assert orjson.loads(received.body)["prompt"] == "<|user|>"
    assert completion.text


async def test_the_key_is_sent_and_never_shown(
    start_fake_server: START, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The named variable's key authorizes, and is in no repr and no fault."""
    monkeypatch.setenv("MY_KEY", "secret-of-mine-123")
    server = start_fake_server(key="secret-of-mine-123")
    async with teacher(server.url, key_variable="MY_KEY") as made:
        await made(ask())
        assert "secret-of-mine" not in repr(made)
    wrong = start_fake_server(key="another")
    fault = await fault_of(wrong.url, key_variable="MY_KEY")
    assert fault.kind == "unauthorized"
    assert "secret-of-mine" not in fault.message


async def test_no_key_is_sent_unless_a_variable_is_named(
    fake_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key for OpenAI that happens to be set does not go to some other server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    async with teacher(fake_server.url) as made:
        await made(ask())
    assert "Authorization" not in fake_server.server.requests[0].headers


async def test_a_missing_key_is_one_line_naming_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A remote server whose recipe names a variable needs it set before anything is sent."""
    monkeypatch.delenv("MY_KEY", raising=False)
    made = CompatibleTeacher(
        id="c", model="m", base_url="https://models.example/v1", key_variable="MY_KEY"
    )
    with pytest.raises(UserError, match=r"export MY_KEY=\.\.\."):
        await made.start()


async def test_a_refused_host_is_refused_before_connecting() -> None:
    """With privacy: local, a remote address fails at the start, naming host and recipe key."""
    policy = Policy(local=True)
    made = CompatibleTeacher(id="c", model="m", base_url="https://models.example/v1", policy=policy)
    with pytest.raises(PrivacyError, match=r"'models\.example' \(teacher\.base_url\)"):
        await made.start()


@pytest.mark.parametrize("template", ["llama.cpp", "vllm"])
async def test_the_user_header_ends_where_a_user_speaks(
    start_fake_server: START, template: str
) -> None:
    """The template's text is cut right before the user's message, by either server's endpoints."""
    async with teacher(start_fake_server(template=template).url) as made:
        header = await made.user_header()
    assert header.startswith("<|im_start|>system")
    assert header.endswith("<|im_end|>\n<|im_start|>user\n")


async def test_a_server_without_template_says_so(start_fake_server: START) -> None:
    """A server with neither endpoint is an error that names the strategy."""
    async with teacher(start_fake_server(template="none").url) as made:
        with pytest.raises(TeacherError, match="magpie"):
            await made.user_header()


async def test_connections_are_limited_and_kept(start_fake_server: START) -> None:
    """No more calls are on the wire than the concurrency allows, and all of them are answered."""
    server = start_fake_server(latency_ms=5)
    async with teacher(server.url, concurrency=4) as made:
        done = await asyncio.gather(*(made(ask(f"Question {n}?")) for n in range(40)))
    assert len({completion.request_id for completion in done}) == 40
    assert server.server.stats.max_in_flight == 4


async def test_a_remote_server_is_asked_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the key, renewed ones too; faults never show it."""
    said = b'{"choices":[{"message":{"content":"Hello."},"finish_reason":"stop"}]}'
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
    bad = b"HTTP/1.1 401 No\r\nContent-Length: 14\r\n\r\nnot first-key!"
    monkeypatch.setenv("MY_KEY", "first-key")
    async with serving(good, bad, good) as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with teacher("http://models.example", key_variable="MY_KEY") as made:
            assert (await made(ask())).text == "Hello."
            with pytest.raises(TeacherFault, match=r"not \[key\]!"):
                await made(ask())
            monkeypatch.setenv("MY_KEY", "second-key")
            assert made.renew_key()
            await made(ask())
    keys = [request.split(b"Bearer ")[1].split(b"\r\n")[0] for request in proxy.requests]
    assert keys == [b"first-key", b"first-key", b"second-key"]
    assert proxy.requests[0].startswith(b"POST http://models.example/v1/chat/completions ")
