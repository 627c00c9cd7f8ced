"""A real llama.cpp server as a child process, on a tiny model with random weights."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct.core.errors import TeacherError, TeacherFault, UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Request, Sampling
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.teachers.local import LocalTeacher
from selfinstruct.testing.tiny_gguf import write_tiny_gguf

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

SCHEMA = {
    "type": "object",
    "properties": {"done": {"type": "boolean"}},
    "required": ["done"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for the servers' logs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def local(path: Path, **options: Any) -> LocalTeacher:
    settings = {"concurrency": 2, "context": 512, "threads": 1, **options}
    return LocalTeacher(id="local/tiny.gguf", model=str(path), **settings)


@pytest.fixture
async def teacher(gguf: Path) -> AsyncIterator[LocalTeacher]:
    made = local(gguf)
    await made.start()
    yield made
    await made.close()


def ask(text: str = "Hello", **sampling: Any) -> Request:
    return make_request(
        teacher="local/tiny.gguf",
        model="tiny.gguf",
        sampling=Sampling(**{"max_tokens": 24, "temperature": 1.0, "seed": 3, **sampling}),
        messages=(Message("user", text),),
        sample=0,
    )


def process_of(teacher: LocalTeacher) -> asyncio.subprocess.Process:
    assert teacher.server.process is not None
    return teacher.server.process


async def test_a_chat_call_is_answered(teacher: LocalTeacher) -> None:
    """The reply has text, a finish and measured usage, and no path of this machine."""
    completion = await teacher(ask())
    assert completion.text
    assert completion.finish == "length"
    assert completion.usage.output == 24
    assert not completion.usage.estimated
    assert completion.model == "tiny.gguf"


async def test_a_schema_holds_the_reply(teacher: LocalTeacher) -> None:
    """Even noise is held to the schema."""
    completion = await teacher(ask(schema=SCHEMA))
    assert orjson.loads(completion.text)["done"] in (True, False)


async def test_the_user_header_and_raw_prompts_work(teacher: LocalTeacher) -> None:
    """The header is the template's text before a user's message, and can be continued."""
    header = await teacher.user_header()
    raw = make_request(
        teacher="t", model="m", sampling=Sampling(max_tokens=8, seed=1), prompt=header, sample=0
    )
    assert header == "<|im_start|>user\n"
    assert (await teacher(raw)).usage.output == 8


async def test_the_same_seed_gives_the_same_text(teacher: LocalTeacher) -> None:
    """The sampling seed reaches the sampler."""
    first, again, other = [await teacher(ask(seed=seed)) for seed in (5, 5, 6)]
    assert first.text == again.text != other.text


async def test_too_long_a_prompt_is_a_context_overflow(teacher: LocalTeacher) -> None:
    """The context is per call: what does not fit will never pass."""
    with pytest.raises(TeacherFault) as caught:
        await teacher(ask("x" * 600))
    assert caught.value.kind == "context_overflow"


async def test_two_calls_run_at_once_each_with_its_context(teacher: LocalTeacher) -> None:
    """Parallel calls do not share one call's context."""
    done = await asyncio.gather(*(teacher(ask("y" * 400 + str(n))) for n in range(4)))
    assert all(completion.usage.input > 400 for completion in done)


async def test_the_server_wants_its_key(teacher: LocalTeacher) -> None:
    """Another program on this machine cannot use the server without the key of this run."""
    import aiohttp

    assert teacher.server.client is not None
    async with aiohttp.ClientSession() as session:
        url = f"{teacher.server.client.fleet.members[0].base}/chat/completions"
        async with session.post(url, json={"messages": []}) as response:
            assert response.status == 401


async def test_it_works_under_local_privacy(gguf: Path) -> None:
    """Nothing but loopback is needed to load and to answer."""
    policy = Policy(local=True)
    made = local(gguf, policy=policy)
    with enforce(policy):
        await made.start()
        try:
            assert (await made(ask())).text
        finally:
            await made.close()


async def test_close_stops_the_server_and_removes_its_log(gguf: Path) -> None:
    """Nothing is left behind."""
    made = local(gguf)
    await made.start()
    process, log = process_of(made), made.server.log
    assert log is not None
    assert log.exists()
    await made.close()
    assert process.returncode == 0
    assert not log.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
async def test_a_crash_is_an_error_with_the_end_of_the_log(gguf: Path) -> None:
    """Once the server has died every call says so, and the log stays."""
    made = local(gguf)
    await made.start()
    log = made.server.log
    assert log is not None
    process_of(made).send_signal(signal.SIGSEGV)
    results = await asyncio.gather(*(made(ask()) for _ in range(3)), return_exceptions=True)
    await made.close()
    assert [type(result) for result in results] == [TeacherError] * 3
    assert "died (exit status -11)" in str(results[0])
    assert str(log) in str(results[0])
    assert log.exists()


@pytest.fixture
def broken(gguf: Path, tmp_path: Path) -> Path:
    path = tmp_path / "broken.gguf"
    path.write_bytes(gguf.read_bytes()[:5000])
    return path


async def test_a_broken_model_is_an_error_with_the_end_of_the_log(broken: Path) -> None:
    """A file that begins like a GGUF but cannot be loaded is told by the server's own words."""
    with pytest.raises(TeacherError, match=r"could not load .*broken\.gguf") as caught:
        await local(broken).start()
    assert "\n" not in str(caught.value)


async def test_a_server_that_does_not_load_in_time_is_stopped(gguf: Path) -> None:
    """The deadline for loading holds, and leaves no process behind."""
    made = local(gguf, start_s=0.01)
    with pytest.raises(TeacherError, match=r"did not load .* within 0\.01 s"):
        await made.start()
    assert made.server.process is None


async def test_no_gguf_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A file of another kind is the user's mistake, told before a server is started."""
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="not a GGUF file"):
        await local(other).start()


PARENT = """
import asyncio, sys
from selfinstruct.steps.teachers.local import LocalTeacher
async def main():
    teacher = LocalTeacher(id="t", model=sys.argv[1], context=512, threads=1)
    await teacher.start()
    print(teacher.server.process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_the_server_goes_when_its_parent_is_killed(gguf: Path) -> None:
    """After kill -9 of the parent nobody can stop the child, so it stops by itself."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(gguf)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether the process runs; an orphan that nobody has reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")
