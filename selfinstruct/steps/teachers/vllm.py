"""A teacher on this machine's GPUs: ``vllm serve`` in a child process on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfinstruct.core.errors import MissingDependency
from selfinstruct.core.types import Completion, Request
from selfinstruct.steps.privacy import OFFLINE, QUIET, Policy
from selfinstruct.steps.teachers import vllm_server
from selfinstruct.steps.teachers.child import ChildServer

# A large model comes off a disk at a few hundred megabytes a second, and is then compiled.
START_S = 3600.0
STOP_S = vllm_server.GRACE_S + 5.0
# vLLM counts its users unless told not to.
_QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
_PROGRAM = "selfinstruct.steps.teachers.vllm_server"


class VllmTeacher:
    """A `core.types.Teacher` that starts ``vllm serve`` and speaks to it as `compatible`.

    Every GPU holds a copy of the model (data parallel), unless `args` say otherwise.

    Args:
        id: the teacher's name in request ids and in the bill.
        model: a model folder, or a Hub id that vLLM fetches; under a local policy it must be in
            the Hub's cache.
        args: more arguments of ``vllm serve``.
        concurrency: calls at once.
        timeout_s: seconds for a call, from sending to the last byte.
        start_s: seconds for the server to load its model.
        policy: where the run may connect to.
    """

    def __init__(
        self,
        *,
        id: str,
        model: str,
        args: Sequence[str] = (),
        concurrency: int = 64,
        timeout_s: float = 120.0,
        start_s: float = START_S,
        policy: Policy | None = None,
    ) -> None:
        folder = Path(model).expanduser()
        self._path = str(folder) if folder.is_dir() else model
        self.id = id
        # A folder is named without its place on this machine.
        self.model = folder.resolve().name if folder.is_dir() else model
        self._args = list(args)
        self._policy = policy or Policy()
        self.server = ChildServer(
            id=id,
            model=self.model,
            server="vllm",
            program=_PROGRAM,
            key_variable=vllm_server.KEY_VARIABLE,
            concurrency=concurrency,
            timeout_s=timeout_s,
            start_s=start_s,
            stop_s=STOP_S,
            policy=self._policy,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r})"

    async def start(self) -> None:
        """Start the server and wait until it has loaded.

        Raises `MissingDependency` without vLLM, and `TeacherError`, with the last lines of its log,
        where it does not come up.
        """
        if vllm_server.find_vllm() is None:
            raise MissingDependency("vllm", "serve", "a teacher of kind vllm (Linux and a GPU)")
        options = ["--model", self._path, "--name", self.model, "--", *self._args]
        offline = OFFLINE if self._policy.local else {}
        await self.server.start(options, self._path, {**QUIET, **_QUIET, **offline})

    async def close(self) -> None:
        """Stop the server and remove its log."""
        await self.server.close()

    async def __call__(self, request: Request) -> Completion:
        """One attempt. Raises `TeacherFault`, and `TeacherError` once the server has died."""
        return await self.server(request)

    async def user_header(self) -> str:
        """The model's own chat template, up to where a user's message begins."""
        return await self.server.user_header()
