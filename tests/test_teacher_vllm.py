"""``vllm serve`` as a child, played by a stand-in of that name: a real process and real HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from selfinstruct.core.errors import MissingDependency, TeacherError
from selfinstruct.core.ids import make_request
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Message, Request, Sampling
from selfinstruct.engine.routes import is_local
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.teachers.build import make_teacher
from selfinstruct.steps.teachers.vllm import VllmTeacher
from selfinstruct.steps.teachers.vllm_server import find_vllm, gpus, serve_command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="vLLM has no Windows build")

# Takes vllm's arguments, writes down what it was given, starts a worker, and serves.
STAND_IN = """#!{python}
import argparse, asyncio, json, os, subprocess, sys
from selfinstruct.testing import fake_server
parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["serve"])
parser.add_argument("model")
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--served-model-name", required=True)
parser.add_argument("--data-parallel-size", type=int, default=1)
parser.add_argument("--tensor-parallel-size", type=int, default=1)
parser.add_argument("--fail", action="store_true")
given = parser.parse_args()
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
seen = vars(given) | {{"pid": os.getpid(), "worker": worker.pid, "argv": sys.argv}}
seen["offline"] = os.environ.get("HF_HUB_OFFLINE")
seen["stats"] = os.environ.get("VLLM_NO_USAGE_STATS")
open({notes!r}, "w").write(json.dumps(seen))
if given.fail:
    sys.exit("ValueError: the model does not fit into the memory")
options = fake_server.Options(template="vllm", key=os.environ["VLLM_API_KEY"])
asyncio.run(fake_server._main(options, given.port))
"""


class StandIn:
    """The stand-in's folder and what it wrote down."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes.json"
        program = folder / "vllm"
        program.write_text(STAND_IN.format(python=sys.executable, notes=str(self.notes)), "utf-8")
        program.chmod(0o755)

    def seen(self) -> dict[str, Any]:
        return dict(json.loads(self.notes.read_text("utf-8")))


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A `vllm` on PATH, two GPUs to see, and a folder of the test's own for logs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return StandIn(folder)


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[VllmTeacher]:
    teacher = VllmTeacher(**{"id": "vllm/m", "model": "org/model-1", **options})
    await teacher.start()
    try:
        yield teacher
    finally:
        await teacher.close()


def ask(text: str = "What is a river?") -> Request:
    return make_request(
        teacher="vllm/m",
        model="org/model-1",
        sampling=Sampling(max_tokens=50),
        messages=(Message("user", text),),
        sample=0,
    )


async def test_it_serves_one_copy_per_gpu_and_answers(vllm: StandIn) -> None:
    """Model, name, loopback address and data parallelism are given; the reply comes over HTTP."""
    async with started(args=["--tensor-parallel-size=1"]) as teacher:
        completion = await teacher(ask())
        assert (await teacher.user_header()).endswith("<|im_start|>user\n")
    seen = vllm.seen()
    assert completion.text
    assert completion.model == "org/model-1"
    assert (seen["model"], seen["served_model_name"]) == ("org/model-1", "org/model-1")
    assert seen["host"] == "127.0.0.1"
    assert seen["data_parallel_size"] == 2
    assert seen["stats"] == "1"
    assert "key" not in " ".join(seen["argv"])


async def test_the_server_wants_its_key(vllm: StandIn) -> None:
    """Another program on this machine cannot use the server without the key of this run."""
    import aiohttp

    async with started() as teacher, aiohttp.ClientSession() as session:
        assert teacher.server.client is not None
        url = f"{teacher.server.client.fleet.members[0].base}/chat/completions"
        async with session.post(url, json={"messages": []}) as response:
            assert response.status == 401


async def test_close_stops_the_server_with_its_workers(vllm: StandIn) -> None:
    """Nothing keeps the GPUs, and no log is left behind."""
    async with started() as teacher:
        log = teacher.server.log
        assert log is not None
        assert log.exists()
    seen = vllm.seen()
    assert gone(seen["pid"])
    assert gone(seen["worker"])
    assert not log.exists()


async def test_a_folder_is_served_by_its_name(vllm: StandIn, tmp_path: Path) -> None:
    """No path of this machine gets into requests and records."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    section = TeacherConfig(kind="vllm", model=str(folder))
    teacher = make_teacher(section, Policy(local=True))
    assert (teacher.id, teacher.model) == ("vllm/my-model", "my-model")
    assert is_local(section)
    with enforce(Policy(local=True)):
        await teacher.start()
        try:
            assert (await teacher(ask())).text
        finally:
            await teacher.close()
    seen = vllm.seen()
    assert (seen["model"], seen["served_model_name"]) == (str(folder), "my-model")
    assert seen["offline"] == "1"


async def test_a_server_that_does_not_load_is_an_error_with_its_log(vllm: StandIn) -> None:
    """The end of vLLM's log is in the one line, and the log stays."""
    with pytest.raises(TeacherError, match="could not load org/model-1") as caught:
        async with started(args=["--fail"]):
            pass
    assert "does not fit into the memory" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_crash_is_an_error(vllm: StandIn) -> None:
    """Once vLLM has died its supervisor ends too, and every call says so."""
    async with started() as teacher:
        os.kill(vllm.seen()["pid"], signal.SIGKILL)
        results = await asyncio.gather(*(teacher(ask()) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [TeacherError] * 3
    assert "the vllm server died" in str(results[0])


async def test_a_server_that_takes_too_long_is_stopped(vllm: StandIn) -> None:
    """The deadline for loading holds, and leaves no process behind."""
    with pytest.raises(TeacherError, match=r"did not load org/model-1 within 0\.01 s"):
        async with started(start_s=0.01):
            pass


PARENT = """
import asyncio
from selfinstruct.steps.teachers.vllm import VllmTeacher
async def main():
    teacher = VllmTeacher(id="t", model="m")
    await teacher.start()
    print("up", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_it_goes_when_its_parent_is_killed(vllm: StandIn) -> None:
    """After kill -9 of the run, vLLM and its workers end by themselves."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parent.kill()
    seen = vllm.seen()
    assert gone(seen["pid"])
    assert gone(seen["worker"])


async def test_without_vllm_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is started, and the extra is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if find_vllm() is not None:
        pytest.skip("vLLM is installed here")
    with pytest.raises(MissingDependency, match=r"pip install 'selfinstruct\[serve\]'"):
        await VllmTeacher(id="t", model="m").start()


@pytest.mark.parametrize(
    ("args", "devices", "copies"),
    [
        ([], 0, None),
        ([], 1, None),
        ([], 8, "8"),
        (["--tensor-parallel-size", "2"], 8, "4"),
        (["-tp=8"], 8, None),
        (["--data-parallel-size", "2"], 8, "2"),
    ],
)
def test_copies_follow_the_gpus(args: list[str], devices: int, copies: str | None) -> None:
    """One copy on each GPU or group of GPUs, unless the recipe says otherwise."""
    command = serve_command(["vllm"], "m", "m", 1234, args, devices)
    given = dict(itertools.pairwise(command)).get("--data-parallel-size")
    assert given == copies


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The chosen devices count, else those that nvidia-smi lists, else none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")
    assert gpus() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == 0
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\necho 'GPU 1: NVIDIA H200'\n", "utf-8")
    listing.chmod(0o755)
    assert gpus() == 2


def gone(pid: int) -> bool:
    """Whether the process ends within some seconds; an orphan that nobody has reaped has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        ps = ["ps", "-o", "stat=", "-p", str(pid)]
        state = subprocess.run(ps, capture_output=True, text=True).stdout.strip()
        if state[:1] in ("", "Z"):
            return True
        time.sleep(0.05)
    return False
