"""Every error a user can meet, in one hierarchy.

    SelfInstructError
    ├── UserError               something given was wrong: fix it and run again     exit 2
    │   ├── RecipeError         a recipe, a ``--set`` or a prompt file
    │   ├── SeedError           a seed file, named by file, line and field
    │   ├── DocumentError       a document that cannot be read, named by its file
    │   ├── FolderError         the run folder: in use, read-only, of another kind
    │   ├── MissingDependency   an extra that this command needs is not installed
    │   └── PrivacyError        a host or source that the privacy setting refuses
    ├── CapReached              ``--max-cost`` leaves no room for another request   exit 3
    ├── TeacherError            the teacher refused for good, or cannot be reached  exit 4
    ├── LedgerError             the ledger cannot be written: disk full, I/O error  exit 5
    ├── NoProgress              the run stopped itself: nothing new is being kept   exit 6
    └── Interrupted             Ctrl-C or SIGTERM                                   exit 130

All of them are shown as one line, without a traceback. Anything else is a fault of ours and exits
with 1. ``TeacherFault`` is not an error of the user's: it is how a teacher tells the dispatcher
what went wrong with one attempt, and the dispatcher decides what becomes of it.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class SelfInstructError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class UserError(SelfInstructError):
    """Something the user gave is wrong; the message says what, where and what to do."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe, an override or a prompt file does not say what it must."""


class SeedError(UserError):
    """A seed file cannot be read; the message names file, line and field."""


class DocumentError(UserError):
    """A document cannot be read; the message names the file and what to do."""


class FolderError(UserError):
    """The run folder cannot be used: locked by another process, read-only, or not a run."""


class MissingDependency(UserError):
    """A command needs an extra that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install 'selfinstruct[{extra}]'"
        )


class PrivacyError(UserError):
    """The privacy setting refuses this host or this source."""


class CapReached(SelfInstructError):
    """The money cap leaves no room for the worst case of another request."""

    exit_code = 3


class TeacherError(SelfInstructError):
    """The teacher refused for good (key, model, money) or cannot be reached."""

    exit_code = 4


class LedgerError(SelfInstructError):
    """The ledger cannot be written, so nothing more may be spent."""

    exit_code = 5


class NoProgress(SelfInstructError):
    """The run stopped itself because too little new is being kept."""

    exit_code = 6


class Interrupted(SelfInstructError):
    """The user stopped the run; the same command continues it."""

    exit_code = 130


FaultKind = Literal[
    "rate_limited",  # 429: come back later
    "overloaded",  # 5xx, 529
    "connection",  # refused, reset, DNS: no reply at all
    "timeout",  # deadline passed; the server may have billed it
    "bad_reply",  # 200 with a body that is no completion; billed
    "out_of_money",  # 429 or 402 that waiting does not mend
    "unauthorized",  # 401, 403
    "not_found",  # 404: wrong model or URL
    "bad_request",  # 400, 413, 422: this request will never pass
    "context_overflow",  # the prompt is too long for the model
    "refused",  # content filter before any completion
]
Billed = Literal["no", "maybe", "yes"]

RETRYABLE: frozenset[FaultKind] = frozenset(
    {"rate_limited", "overloaded", "connection", "timeout", "bad_reply"}
)
STOPS_THE_RUN: frozenset[FaultKind] = frozenset({"out_of_money", "unauthorized", "not_found"})


class TeacherFault(Exception):
    """One attempt at one request failed.

    Args:
        kind: what happened, by status and error code, never by message text.
        message: what the server said, shortened, without secrets.
        retry_after: seconds the server asked us to wait, if it did.
        billed: whether the attempt may have cost money.
        status: the HTTP status, where there was one.
    """

    def __init__(
        self,
        kind: FaultKind,
        message: str,
        *,
        retry_after: float | None = None,
        billed: Billed = "no",
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.message = message
        self.retry_after = retry_after
        self.billed: Billed = billed
        self.status = status

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in RETRYABLE

    @property
    def stops_the_run(self) -> bool:
        """Whether every other request would fail the same way."""
        return self.kind in STOPS_THE_RUN
