"""A teacher on this machine: a GGUF file, served by llama.cpp in a child process on loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path

from selfinstruct.core.errors import MissingDependency
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import OFFLINE, QUIET, Policy
from selfinstruct.steps.teachers import llama_server, models
from selfinstruct.steps.teachers.child import ChildServer

# Loading takes seconds for a small model and minutes for a large one on a slow disk.
START_S = 600.0
STOP_S = 5.0
_PROGRAM = "selfinstruct.steps.teachers.llama_server"


class LocalTeacher:
    """A `core.types.Teacher` that starts a llama.cpp server and speaks to it as `compatible`.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: a GGUF file's path, or a name in `models.KNOWN`.
        sha256: the checksum the file must have, if any.
        concurrency: calls the server works on at once.
        context: tokens of context for each of them.
        threads: processor threads; all cores but one where None, since a thread that shares its
            core with anything else holds up all the others.
        gpu_layers: layers put on a GPU where there is one; -1 for as many as fit.
        seed: for requests that bring none.
        timeout_s: seconds for a call, from sending to the last byte.
        start_s: seconds for the server to load its model.
        policy: where the run may connect to; under a local one no model is fetched.
    """

    def __init__(
        self,
        *,
        id: str,
        model: str,
        sha256: str | None = None,
        concurrency: int = 4,
        context: int = 4096,
        threads: int | None = None,
        gpu_layers: int = -1,
        seed: int = 0,
        timeout_s: float = 120.0,
        start_s: float = START_S,
        policy: Policy | None = None,
    ) -> None:
        self.id = id
        self.model = model
        self._sha256 = sha256
        self._concurrency = concurrency
        self._context = context
        self._threads = threads or max(1, _cores() - 1)
        self._gpu_layers = gpu_layers
        self._seed = seed
        self._policy = policy or Policy()
        self.server = ChildServer(
            id=id,
            model=model,
            server="llama.cpp",
            program=_PROGRAM,
            key_variable=llama_server.KEY_VARIABLE,
            concurrency=concurrency,
            timeout_s=timeout_s,
            start_s=start_s,
            stop_s=STOP_S,
            policy=self._policy,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    async def start(self) -> None:
        """Fetch the model if need be, start the server and wait until it has loaded.

        Raises `UserError` for a model that cannot be used and `TeacherError`, with the last lines
        of the server's log, where the server does not come up.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingDependency("xllamacpp", "local", "a local teacher")
        path = await asyncio.to_thread(
            models.resolve, self.model, sha256=self._sha256, policy=self._policy
        )
        await self.server.start(self._options(path), str(path), OFFLINE | QUIET)

    def _options(self, path: Path) -> list[str]:
        options = {
            "--model": path,
            "--alias": Path(self.model).name,
            "--parallel": self._concurrency,
            "--context": self._context,
            "--threads": self._threads,
            "--gpu-layers": self._gpu_layers,
            "--seed": self._seed,
        }
        return [f"{name}={value}" for name, value in options.items()]

    async def close(self) -> None:
        """Stop the server and remove its log."""
        await self.server.close()

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`, and `TeacherError` once the server has died."""
        return await self.server(request)

    async def user_header(self) -> str:
        """The model's own chat template, up to where a user's message begins."""
        return await self.server.user_header()


def _cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
