"""A teacher that replays replies from a file or a function: dry runs without a model or money.

A script is JSONL, one reply a line: ``{"text": "...", "match": "...", "finish": "stop"}``. A line
with ``match`` answers the requests whose prompt contains that text; the others share the lines
without. Which of them a request gets depends on the request alone, so a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.core.types import Completion, FinishReason, Request
from selfinstruct.steps.teachers.replies import estimated

HEADER = "<|im_start|>user\n"


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a script. An empty `match` fits every request."""

    text: str
    match: str = ""
    finish: FinishReason = "stop"


Answer = Callable[[Request], Reply]


class ScriptedTeacher:
    """A `core.types.Teacher` whose replies are `answer(request)`."""

    def __init__(self, answer: Answer, *, id: str = "scripted", model: str = "scripted") -> None:
        self.id = id
        self.model = model
        self._answer = answer

    async def __call__(self, request: Request) -> Completion:
        """The reply of the script, with estimated usage."""
        reply = self._answer(request)
        return Completion(
            request_id=request.id,
            text=reply.text,
            finish=reply.finish,
            usage=estimated(request, reply.text),
            model=request.model,
        )

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def user_header(self) -> str:
        """ChatML's."""
        return HEADER


def from_file(path: str | Path) -> Answer:
    """The replies of the script at `path`. Raises `UserError`, naming file and line."""
    replies = _read(Path(path))
    anywhere = tuple(reply for reply in replies if not reply.match)
    matching = tuple(reply for reply in replies if reply.match)

    def answer(request: Request) -> Reply:
        prompt = request.prompt + "\n".join(message.content for message in request.messages)
        fitting = tuple(reply for reply in matching if reply.match in prompt) or anywhere
        if not fitting:
            raise UserError(
                f"{path}: no reply fits the request of slot {request.slot}; "
                'add a line without "match"'
            )
        return fitting[int(request.id[:12], 16) % len(fitting)]

    return answer


def _read(path: Path) -> tuple[Reply, ...]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read the script {path}: {error.strerror}") from error
    replies = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            replies.append(msgspec.json.decode(line, type=Reply))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{number}: {error}") from error
    if not replies:
        raise UserError(f"{path}: a script needs at least one reply")
    return tuple(replies)
