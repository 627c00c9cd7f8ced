"""Everything that can go wrong with a call, over HTTP, with each of the clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfinstruct.core.errors import TeacherFault, UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Completion, Message, Request, Sampling, Teacher
from selfinstruct.steps.teachers import faults
from selfinstruct.steps.teachers.anthropic_sdk import AnthropicTeacher
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.steps.teachers.openai_sdk import OpenAITeacher
from selfinstruct.testing.fake_server import Running

START = Callable[..., Running]
CLIENTS = ["compatible", "openai", "anthropic"]
every_client = pytest.mark.parametrize("client", CLIENTS)


def make(client: str, url: str, timeout_s: float, **options: Any) -> Teacher:
    if client == "anthropic":
        return AnthropicTeacher(id="t", model="m", base_url=url, timeout_s=timeout_s, **options)
    kind = OpenAITeacher if client == "openai" else CompatibleTeacher
    return kind(id="t", model="m", base_url=f"{url}/v1", timeout_s=timeout_s, **options)


def ask() -> Request:
    return make_request(
        teacher="t",
        model="m",
        sampling=Sampling(max_tokens=400),
        messages=(Message("user", "What is a lighthouse for?"),),
        sample=0,
    )


@contextlib.asynccontextmanager
async def started(
    client: str, url: str, timeout_s: float = 20, **options: Any
) -> AsyncIterator[Teacher]:
    teacher = make(client, url, timeout_s, **options)
    await teacher.start()
    try:
        yield teacher
    finally:
        await teacher.close()


async def call(client: str, url: str, timeout_s: float = 20) -> Completion:
    async with started(client, url, timeout_s) as teacher:
        return await teacher(ask())


async def fault_of(client: str, url: str, timeout_s: float = 20) -> TeacherFault:
    with pytest.raises(TeacherFault) as caught:
        await call(client, url, timeout_s)
    return caught.value


REFUSALS = [
    ("400", "bad_request", None),
    ("401", "unauthorized", None),
    ("402", "out_of_money", None),
    ("403", "unauthorized", None),
    ("404", "not_found", None),
    ("413", "bad_request", None),
    ("422", "bad_request", None),
    ("429", "rate_limited", None),
    ("429-after", "rate_limited", 1.0),
    ("429-soon", "rate_limited", 0.2),
    ("429-ms", "rate_limited", 0.25),
    ("insufficient_quota", "out_of_money", None),
    ("billing_limit", "out_of_money", None),
    ("context", "context_overflow", None),
    ("llama_context", "context_overflow", None),
    ("vllm_context", "context_overflow", None),
    ("worded_context", "context_overflow", None),
    ("filtered_prompt", "refused", None),
    ("redirect", "not_found", None),
    ("500", "overloaded", None),
    ("503", "overloaded", None),
    ("529", "overloaded", None),
]
# Anthropic has one error type for every fault of a request, and no code that tells more.
ANTHROPIC = {
    "context": "bad_request",
    "llama_context": "bad_request",
    "vllm_context": "bad_request",
    "filtered_prompt": "bad_request",
}


@every_client
@pytest.mark.parametrize(("name", "kind", "wait"), REFUSALS)
async def test_a_refusal_is_sorted_by_status_and_code(
    start_fake_server: START, client: str, name: str, kind: str, wait: float | None
) -> None:
    """Each error status is one kind of fault, costs nothing and says how long to wait."""
    server = start_fake_server(script=(name,))
    fault = await fault_of(client, server.url)
    expected = ANTHROPIC.get(name, kind) if client == "anthropic" else kind
    assert (fault.kind, fault.retry_after, fault.billed) == (expected, wait, "no")
    assert fault.status is not None
    assert server.server.stats.calls == 1


@every_client
async def test_a_date_to_retry_after_is_seconds_from_now(
    start_fake_server: START, client: str
) -> None:
    """Retry-After may be an HTTP date."""
    fault = await fault_of(client, start_fake_server(script=("429-date",)).url)
    assert fault.retry_after is not None
    assert fault.retry_after > 1e6


BROKEN = [
    ("reset", "connection", "maybe"),
    ("reset_in_body", "bad_reply", "maybe"),
    ("invalid_json", "bad_reply", "maybe"),
    ("truncated_json", "bad_reply", "maybe"),
    ("error_in_200", "bad_reply", "maybe"),
    ("429_in_200", "rate_limited", "maybe"),
    ("empty_choices", "bad_reply", "maybe"),
    ("wrong_types", "bad_reply", "maybe"),
    ("huge", "bad_reply", "yes"),
    ("504", "overloaded", "maybe"),
]


@every_client
@pytest.mark.parametrize(("name", "kind", "billed"), BROKEN)
async def test_a_broken_reply_is_a_fault_that_may_be_billed(
    start_fake_server: START, client: str, name: str, kind: str, billed: str
) -> None:
    """What comes back broken is never taken for a completion, and never repeated by a client."""
    server = start_fake_server(script=(name,))
    fault = await fault_of(client, server.url)
    assert (fault.kind, fault.billed) == (kind, billed)
    assert server.server.stats.calls == 1


@every_client
@pytest.mark.parametrize("name", ["stall", "slow_loris"])
async def test_the_deadline_covers_the_whole_reply(
    start_fake_server: START, client: str, name: str
) -> None:
    """A server that sends nothing, or a byte at a time, is given up after timeout_s."""
    url = start_fake_server(script=(name,)).url
    async with started(client, url, timeout_s=0.4) as teacher:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TeacherFault) as caught:
            await teacher(ask())
    assert (caught.value.kind, caught.value.billed) == ("timeout", "maybe")
    assert loop.time() - began < 3


@every_client
async def test_a_reply_that_stands_still_is_given_up(start_fake_server: START, client: str) -> None:
    """Half a reply and then nothing is not waited for as long as a whole one."""
    url = start_fake_server(script=("stall_in_body", "ok")).url
    async with started(client, url, timeout_s=20, stall_s=0.3) as teacher:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TeacherFault, match=r"stood still for 0\.3 s") as caught:
            await teacher(ask())
        assert (caught.value.kind, caught.value.billed) == ("timeout", "maybe")
        assert loop.time() - began < 3
        assert (await teacher(ask())).text


@every_client
async def test_a_key_is_read_again(start_fake_server: START, tmp_path: Path, client: str) -> None:
    """From its file, which goes before the variable; the next call is sent with the new one."""
    file = tmp_path / "key"
    file.write_text("first-key-123\n", "utf-8")
    server = start_fake_server(key="first-key-123")
    async with started(client, server.url, key_file=str(file)) as teacher:
        assert (await teacher(ask())).text
        server.server.options = replace(server.server.options, key="second-key-456")
        with pytest.raises(TeacherFault) as caught:
            await teacher(ask())
        assert caught.value.kind == "unauthorized"
        assert not teacher.renew_key()  # type: ignore[attr-defined]
        file.write_text("second-key-456\n", "utf-8")
        assert teacher.renew_key()  # type: ignore[attr-defined]
        assert (await teacher(ask())).text
        file.unlink()
        assert not teacher.renew_key()  # type: ignore[attr-defined]


async def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """Before anything is sent."""
    teacher = make("openai", "http://127.0.0.1:9", 5, key_file=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"teacher\.api_key_file: cannot read .*none"):
        await teacher.start()


@every_client
async def test_a_closed_port_costs_nothing(client: str) -> None:
    """Where nobody listens, the fault is a connection that was never made."""
    fault = await fault_of(client, "http://127.0.0.1:9")
    assert (fault.kind, fault.billed) == ("connection", "no")


@every_client
@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("refusal_field", "content_filter"),
    ],
)
async def test_cut_and_refused_replies_are_completions(
    start_fake_server: START, client: str, name: str, finish: str
) -> None:
    """They were paid for, and asking again would pay again."""
    completion = await call(client, start_fake_server(script=(name,)).url)
    assert completion.finish == finish


@every_client
async def test_missing_usage_is_estimated_and_marked(start_fake_server: START, client: str) -> None:
    """Without usage, a token is counted for every four bytes, and flagged."""
    completion = await call(client, start_fake_server(script=("no_usage",)).url)
    assert completion.usage.estimated
    assert completion.usage.output == len(completion.text.encode()) // 4 + 1


@every_client
async def test_a_good_reply_after_a_fault_is_whole(start_fake_server: START, client: str) -> None:
    """A reset leaves the teacher usable: the next attempt succeeds on a new connection."""
    server = start_fake_server(script=("reset", "429", "ok"))
    async with started(client, server.url) as teacher:
        for kind in ("connection", "rate_limited"):
            with pytest.raises(TeacherFault) as caught:
                await teacher(ask())
            assert caught.value.kind == kind
        completion = await teacher(ask())
    assert completion.text
    assert (completion.usage.input, completion.usage.output) == (
        server.server.stats.tokens_in,
        server.server.stats.tokens_out,
    )


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]', "rate_limited"),
        (b'{"error":{"type":"billing_error","message":"no credit"}}', "out_of_money"),
        (b'{"type":"error","error":{"details":{"error_code":"enforced_spend_limit_reached"}}}',
         "out_of_money"),
        (b'{"error":"insufficient_quota in words"}', "rate_limited"),
        (b'{"error":{"message":"insufficient_quota in words"}}', "rate_limited"),
        (b"\xff<html>", "rate_limited"),
        (b"", "rate_limited"),
    ],
)  # fmt: skip
def test_codes_decide_and_words_do_not(body: bytes, kind: str) -> None:
    """A 429 is out of money by its code alone, whatever its message says."""
    assert faults.from_status(429, body, {}).kind == kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None)],
)
def test_a_wait_that_is_no_number_is_no_wait(value: str, seconds: float | None) -> None:
    """Retry-After is taken as seconds where it is a finite number, and never negative."""
    assert faults.retry_after({"Retry-After": value}) == seconds


def test_a_date_in_the_past_is_no_wait() -> None:
    """A server whose clock is behind ours asks for nothing."""
    assert faults.retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_messages_are_short_and_hold_no_key() -> None:
    """The key that was sent, and what looks like one, are blotted out; long text is cut."""
    text = faults.clean("wrong key my-secret, sk-proj-abcdefgh12345678 \n" + "x" * 999, "my-secret")
    assert "my-secret" not in text
    assert "abcdefgh" not in text
    assert "\n" not in text
    assert len(text) == 300
