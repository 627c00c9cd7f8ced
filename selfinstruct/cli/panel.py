"""The live panel of a generation; plain lines without a terminal, JSON lines with --json."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import orjson

from selfinstruct.core.money import show, to_dollars
from selfinstruct.engine.judging import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_SECONDS = 10.0
REASONS_SHOWN = 6


class Panel:
    """Shows a `Progress` until it is closed.

    Args:
        name: the run's name.
        as_json: print one JSON object a line instead.
    """

    def __init__(self, name: str, as_json: bool) -> None:
        self._name = name
        self._as_json = as_json
        self._progress: Progress | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._note = ""

    def say(self, message: str) -> None:
        """Show a note under the panel, or as a line of its own."""
        self._note = message
        if self._as_json or not sys.stderr.isatty():
            click.echo(message, err=True)

    def start(self, progress: Progress) -> None:
        """Begin to show `progress`, which others change meanwhile."""
        self._progress = progress
        live = sys.stderr.isatty() and not self._as_json
        work = self._live if live else self._lines
        self._thread = threading.Thread(target=work, name="panel", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show the last state and stop."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _live(self) -> None:
        from rich.live import Live

        from selfinstruct.cli.common import console

        with Live(console=console(stderr=True), get_renderable=self._render, refresh_per_second=4):
            self._closing.wait()

    def _lines(self) -> None:
        assert self._progress is not None  # noqa: S101 (start sets it)
        write: Callable[[Progress], str] = _as_json if self._as_json else _as_line
        while not self._closing.wait(LINE_SECONDS):
            click.echo(write(self._progress), err=not self._as_json)
        click.echo(write(self._progress), err=not self._as_json)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel as Box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        p = self._progress
        assert p is not None  # noqa: S101 (start sets it)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=p.target, completed=min(p.kept, p.target), width=30),
            Text.assemble((f"{p.kept:,}", "bold green"), f" of {p.target:,} kept"),
            Text(f"{_share(p)} of candidates"),
            Text(f"{_left(p)} left" if p.kept < p.target else "done"),
        )
        body = Table.grid(padding=(0, 3))
        body.add_row(
            Text(
                f"requests {p.calls.calls:,} ({_rate(p):.1f}/s, {p.calls.in_flight} of "
                f"{p.calls.allowed} in flight)"
            ),
            Text(f"tokens {p.calls.tokens_in:,} in, {p.calls.tokens_out:,} out"),
            Text.assemble("spent ", (show(p.cost), "bold"), f" ({_per_record(p)} a record)"),
        )
        parts: list[RenderableType] = [head, body]
        if p.rejected:
            reasons = Table.grid(padding=(0, 2))
            for reason, count in p.rejected.most_common(REASONS_SHOWN):
                reasons.add_row(Text(f"{count:>7,}", "red"), Text(reason.replace("_", " ")))
            parts.append(reasons)
        if p.calls.faults:
            faults = ", ".join(f"{n} {kind}" for kind, n in sorted(p.calls.faults.items()))
            parts.append(Text(f"repeated calls: {faults}", "yellow"))
        if p.batch is not None:
            total, done, failed = p.batch
            parts.append(Text(f"batch: {done:,} of {total:,} answered, {failed:,} failed"))
        if self._note:
            parts.append(Text(self._note, "yellow"))
        return Box(Group(*parts), title=f"generate {self._name}", title_align="left")


def _seconds(progress: Progress) -> float:
    return max(time.time() - progress.began, 1e-9)


def _rate(progress: Progress) -> float:
    return progress.calls.calls / _seconds(progress)


def _share(progress: Progress) -> str:
    candidates = progress.kept + sum(progress.rejected.values())
    return f"{progress.kept / candidates:.0%}" if candidates else "-"


def _per_record(progress: Progress) -> str:
    return show(progress.cost // progress.kept) if progress.kept else "-"


def _left(progress: Progress) -> str:
    """Time to the target at this session's pace."""
    gained = progress.kept - progress.kept_before
    if not gained:
        return "-"
    seconds = int(_seconds(progress) / gained * max(0, progress.target - progress.kept))
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _as_line(progress: Progress) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in progress.rejected.most_common(4))
    return (
        f"kept {progress.kept}/{progress.target}  requests {progress.calls.calls} "
        f"({_rate(progress):.1f}/s)  spent {show(progress.cost)}  left {_left(progress)}"
        + (f"  rejected: {reasons}" if reasons else "")
    )


def _as_json(progress: Progress) -> str:
    return orjson.dumps(
        {
            "event": "progress",
            "stage": "generate",
            "kept": progress.kept,
            "target": progress.target,
            "judged_slots": progress.judged,
            "rejected": dict(progress.rejected),
            "requests": progress.calls.calls,
            "in_flight": progress.calls.in_flight,
            "tokens_in": progress.calls.tokens_in,
            "tokens_out": progress.calls.tokens_out,
            "faults": progress.calls.faults,
            "cost_usd": to_dollars(progress.cost),
            "seconds": round(time.time() - progress.began, 3),
        }
    ).decode()
