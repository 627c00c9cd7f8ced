"""The frozen types of the line.

seed task -> request -> completion -> candidate -> verdict -> record -> dataset -> student

They are `msgspec.Struct`s: immutable, typed, and an order of magnitude cheaper to build and to
encode than dataclasses plus `json`. Money is an integer count of picodollars (1e-12 $), so that
prices per million tokens multiply and add up exactly.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter", "failed"]


class SeedTask(msgspec.Struct, frozen=True, kw_only=True):
    """One human-written example.

    `id` is unique over all seed files of a run; `source` is ``file:line`` for messages. `private`
    marks a source that must not reach a remote teacher without the owner's leave. `turns` are the
    texts of a conversation that a student learns whole; nothing is generated from them.
    """

    id: str
    instruction: str
    input: str = ""
    output: str
    category: str = ""
    source: str = ""
    private: bool = False
    turns: list[str] = []


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document, short enough to be shown whole in a prompt.

    `id` is the document's name (a mark of it, where it is private), the piece's number in it and a
    mark of its text, `title` the headings it stands under, `source` ``file:line`` or ``file:page``
    for messages. `private` is as for a `SeedTask`.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    private: bool = False


class Message(msgspec.Struct, frozen=True):
    """One chat message."""

    role: Role
    content: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling parameters as sent to the teacher; part of the request's id.

    `schema` is a JSON schema the reply must follow, where the teacher can constrain to one.
    `extra` goes into the request body as it is.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    extra: dict[str, Any] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One paid call, as it will be made.

    Exactly one of `messages` (chat) and `prompt` (raw text for a completions endpoint) is set.
    `id` is the hash of what the provider sees and the sample index (see `ids.request_id`); the
    rest says where the call belongs: `slot` is its number in the run, `step` 0 for writing and 1
    for answering, `branch` which of the slot's candidates an answer is for.
    """

    id: str
    teacher: str
    model: str
    sampling: Sampling
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    sample: int = 0
    slot: int = 0
    step: int = 0
    branch: int = 0
    strategy: str = ""
    prompt_version: str = ""
    parents: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call.

    `input` counts all prompt tokens, cached ones included; `output` counts all generated tokens,
    reasoning included. `estimated` is set where the server gave none.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for a request.

    A call that failed for good is a completion too, with `finish` "failed" and the reason in
    `error`: the slot is judged as empty and the run goes on. `cost` is in picodollars.
    """

    request_id: str
    text: str
    finish: FinishReason
    usage: Usage = Usage()
    cost: int = 0
    model: str = ""
    error: str = ""
    latency_ms: float = 0.0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction proposed by a teacher, before judgement.

    `defect` names what the parser already found wrong ("unparseable", "incomplete", ...): such a
    candidate is rejected with that reason, so that what came in always adds up. `requests` are the
    ids of the calls it came from, `cost` its share of them in picodollars.
    """

    id: str
    slot: int
    index: int
    strategy: str
    instruction: str
    input: str = ""
    output: str = ""
    category: str = ""
    defect: str = ""
    parents: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    prompt_version: str = ""
    teacher: str = ""
    model: str = ""
    cost: int = 0

    @classmethod
    def plain(cls, id: str, instruction: str, input: str = "", output: str = "") -> Candidate:
        """One that no run made, such as a dataset's row, for the filters to look at."""
        return cls(
            id=id,
            slot=0,
            index=0,
            strategy="",
            instruction=instruction,
            input=input,
            output=output,
        )


def task_text(item: Candidate | SeedTask) -> str:
    """What a task asks for: its instruction, and its input under it where there is one."""
    return f"{item.instruction}\n{item.input}" if item.input else item.instruction


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a candidate.

    A kept candidate has an empty `reason`. A rejected one has exactly one; `detail` says it in
    words, `neighbour` names the seed or record it was too close to and `score` how close (0..1).
    `flags` names what rules found in a kept one that was not worth a rejection, and `notes` says
    each of them in words, in the same order.
    """

    candidate_id: str
    reason: str = ""
    detail: str = ""
    neighbour: str = ""
    score: float | None = None
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the candidate became a record."""
        return not self.reason


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A judged candidate as it stands in the ledger: kept where the verdict has no reason."""

    candidate: Candidate
    verdict: Verdict


class Teacher(Protocol):
    """A model that answers requests.

    `id` names it in request ids and in the bill (kind and name, never an address), `model` is the
    model's name as the server knows it. Calling it makes exactly one attempt: it returns a
    `Completion` whose cost is not filled in yet, or raises `errors.TeacherFault`.
    """

    id: str
    model: str

    async def __call__(self, request: Request) -> Completion:
        """Make one attempt at `request`."""
        ...

    async def start(self) -> None:
        """Get ready: open connections, start a server. Raises `errors.TeacherError`."""
        ...

    async def close(self) -> None:
        """Release what `start` took."""
        ...

    async def user_header(self) -> str:
        """The chat template's text up to where a user's message begins (Magpie's prompt).

        Raises `errors.TeacherError` where the teacher has no raw completions.
        """
        ...


class Book(Protocol):
    """Where things are kept that follow from a text alone, by a hash of it and what made them."""

    def get(self, key: bytes) -> bytes | None:
        """What is kept under `key`."""
        ...

    def put(self, key: bytes, made: bytes) -> None:
        """Keep `made` under `key`."""
        ...


class Filter(Protocol):
    """One reason, or a family of reasons, to reject a candidate.

    `check` returns a rejecting verdict or None and changes nothing. `add` is called once for each
    seed task before the run and for each kept candidate in order, so that a filter can remember.
    """

    name: str

    def check(self, candidate: Candidate) -> Verdict | None:
        """The verdict against `candidate`, or None if this filter has nothing against it."""
        ...

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate."""
        ...
