"""A training as it runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from selfinstruct.core.money import show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from selfinstruct.steps.training.progress import TrainProgress

LINE_SECONDS = 5.0
NOTES_SHOWN = 4


@contextlib.contextmanager
def training_panel(
    name: str, say: Callable[[str], None], *, live: bool | None = None
) -> Iterator[Callable[[TrainProgress], None]]:
    """What takes the progress of training `name` while the context lasts.

    Args:
        name: the run's name.
        say: prints a line, where there is no live panel.
        live: whether there is one; as standard error is a terminal where not given.
    """
    if live is None:
        live = sys.stderr.isatty()
    if not live:
        yield training_line(say)
        return
    from rich.live import Live

    from selfinstruct.cli.common import console

    notes: list[str] = []
    with Live(console=console(stderr=True), refresh_per_second=4) as screen:
        screen.update(_opening(name))

        def told(progress: TrainProgress) -> None:
            if progress.note:
                notes.append(f"step {progress.step}: {progress.note}")
            screen.update(render(name, progress, notes[-NOTES_SHOWN:]))

        yield told


def training_line(say: Callable[[str], None]) -> Callable[[TrainProgress], None]:
    """An `on_progress` that says a line at most every few seconds, and for what is of note."""
    last = 0.0

    def line(progress: TrainProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS or progress.step == progress.steps or progress.note:
            last = now
            note = f"  ({progress.note})" if progress.note else ""
            stage = f"{progress.stage} " if progress.stage else ""
            place = f"  {stage}step {progress.step}/{progress.steps}  "
            say(place + "  ".join(_facts(progress)) + note)

    return line


def _opening(name: str) -> RenderableType:
    """The panel before the first step: a large base takes minutes to load."""
    from rich.spinner import Spinner

    return _framed(name, Spinner("dots", "reading the records and loading the base"))


def _framed(name: str, content: RenderableType) -> RenderableType:
    from rich.panel import Panel

    return Panel(content, title=f"train-student {name}", title_align="left")


def render(name: str, progress: TrainProgress, notes: list[str]) -> RenderableType:
    """The panel of a training at this step."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=progress.steps, completed=progress.step, width=30),
        Text.assemble((f"{progress.step:,}", "bold green"), f" of {progress.steps:,} steps"),
        Text(f"{clock(progress.seconds)} gone"),
    )
    parts: list[RenderableType] = [head, Text("   ".join(_facts(progress)))]
    parts += [Text(note, "yellow") for note in notes]
    stage = f": {progress.stage}" if progress.stage else ""
    return _framed(f"{name}{stage}", Group(*parts))


def _facts(progress: TrainProgress) -> list[str]:
    facts = [f"loss {progress.loss:.3f}"]
    if progress.held_out_loss is not None:
        facts.append(f"held out {progress.held_out_loss:.3f}")
    facts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.mfu is not None:
        facts.append(f"MFU {progress.mfu:.0%}")
    if progress.seconds_left is not None and progress.step < progress.steps:
        facts.append(f"{clock(progress.seconds_left)} left")
    if progress.cost:
        facts.append(f"spent {show(progress.cost)}")
    return facts


def clock(seconds: float) -> str:
    """Seconds as minutes, or hours and minutes: 4:07, 1:04:07."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
