"""A model server as a child process of this run, spoken to as `compatible`.

The child is a program of ours (`llama_server`, `vllm_server`). It prints the server's address on
its standard output when the model is loaded, and lives exactly as long as its standard input stays
open, which the operating system closes when this process dies, by whatever signal. Its key is made
up for the run, so that no other program on this machine, a web page say, may use the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfinstruct.core.errors import TeacherError, TeacherFault
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.compatible import CompatibleTeacher

_LOG_LINES = 8
_CHUNK = 1 << 16


class ChildServer:
    """A server that lives as long as it is wanted, and the client that speaks to it.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: the model's name as the server knows it.
        server: what to call the server in messages, such as "llama.cpp".
        program: the module that is run as the child.
        key_variable: the environment variable in which the child finds its key.
        concurrency: calls at once.
        timeout_s: seconds for a call, from sending to the last byte.
        start_s: seconds for the model to load.
        stop_s: seconds that the child is given to end by itself.
        policy: where the run may connect to.
    """

    def __init__(
        self,
        *,
        id: str,
        model: str,
        server: str,
        program: str,
        key_variable: str,
        concurrency: int,
        timeout_s: float,
        start_s: float,
        stop_s: float,
        policy: Policy,
    ) -> None:
        self._id = id
        self._model = model
        self._server = server
        self._program = program
        self._key_variable = key_variable
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._start_s = start_s
        self._stop_s = stop_s
        self._policy = policy
        self.process: asyncio.subprocess.Process | None = None
        self.client: CompatibleTeacher | None = None
        self.log: Path | None = None
        self._failure = ""
        self._failing = asyncio.Lock()

    async def start(self, options: Sequence[str], loads: str, env: Mapping[str, str]) -> None:
        """Start the child with these options and wait until it has loaded `loads`.

        Raises `TeacherError`, with the last lines of the log, where it does not come up.
        """
        key = secrets.token_urlsafe(24)
        try:
            async with asyncio.timeout(self._start_s):
                address = await self._launch(options, loads, {**env, self._key_variable: key})
            client = CompatibleTeacher(
                id=self._id,
                model=self._model,
                base_url=f"{address}/v1",
                key=key,
                concurrency=self._concurrency,
                timeout_s=self._timeout_s,
                policy=self._policy,
            )
            await client.start()
            self.client = client
        except TimeoutError:
            reason = f"did not load {loads} within {self._start_s:g} s"
            raise TeacherError(await self._failed(reason)) from None
        finally:
            if self.client is None:
                await self._stop()

    async def _launch(self, options: Sequence[str], loads: str, env: Mapping[str, str]) -> str:
        """Start the child and return the address it prints."""
        handle, name = tempfile.mkstemp(prefix=f"selfinstruct-{self._server}-", suffix=".log")
        self.log = Path(name)
        try:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._program, *options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=handle,
                env={**os.environ, **env},
                # Ctrl-C is for the parent alone: it closes the child when it is done.
                start_new_session=True,
            )
        finally:
            os.close(handle)
        output = self.process.stdout
        line = await output.readline() if output is not None else b""
        if not line:
            raise TeacherError(await self._failed(f"could not load {loads}"))
        return line.decode().strip()

    async def close(self) -> None:
        """Stop the server and remove its log."""
        if self.client is not None:
            await self.client.close()
            self.client = None
        await self._stop()
        if self.log is not None:
            self.log.unlink(missing_ok=True)
            self.log = None

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`, and `TeacherError` once the server has died."""
        if self.client is None:
            raise RuntimeError("the teacher is called before it is started")
        try:
            return await self.client(request)
        except TeacherFault as fault:
            if fault.kind in ("connection", "bad_reply") and await self._dead():
                raise TeacherError(await self._failed("died")) from fault
            raise

    async def post(self, path: str, body: bytes) -> bytes:
        """The reply of one of the server's endpoints beside ``/v1``. Raises `TeacherFault`."""
        if self.client is None:
            raise RuntimeError("the server is called before it is started")
        return await self.client.post_beside(path, body)

    async def user_header(self) -> str:
        """The model's own chat template, up to where a user's message begins."""
        if self.client is None:
            raise RuntimeError("the teacher is called before it is started")
        return await self.client.user_header()

    async def _dead(self) -> bool:
        """Whether the server is gone; a crash shows a moment after its connections break."""
        process = self.process
        if process is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await process.wait()
        return process.returncode is not None

    async def _stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # which the child takes as the end
        try:
            async with asyncio.timeout(self._stop_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _failed(self, what: str) -> str:
        """What went wrong on one line, with the end of the server's log; stops the server."""
        async with self._failing:  # calls in flight fail together: the first one finds out why
            if not self._failure:
                process, log = self.process, self.log
                code = process.returncode if process is not None and await self._dead() else None
                ended = "" if code is None else f" (exit status {code})"
                await self._stop()
                self.log = None  # and so left for the user to read
                self._failure = (
                    f"teacher {self._id}: the {self._server} server {what}{ended}; "
                    f"the end of its log, {log}: {await asyncio.to_thread(_end_of, log)}"
                )
        return self._failure


def _end_of(log: Path | None) -> str:
    """The last lines of a log that may be long."""
    if log is None:
        return "nothing"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _CHUNK))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_LINES:]) or "nothing"
