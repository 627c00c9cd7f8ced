"""What commands share: options, printing, and waiting for work with Ctrl-C handled."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from selfinstruct.core.errors import Interrupted

if TYPE_CHECKING:
    from rich.console import Console

Result = TypeVar("Result")
Command = Callable[..., Any]

recipe_argument = click.argument("recipe", type=click.Path(dir_okay=False))
run_argument = click.argument("run", type=click.Path(file_okay=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the recipe, such as generate.target=200. Repeatable.",
)
output_option = click.option(
    "-o", "--output", type=click.Path(file_okay=False), help="The run folder [outputs/NAME]."
)
force_option = click.option("--force", is_flag=True, help="Do it again although it is done.")


def budget_options(command: Command) -> Command:
    """``--target`` and ``--max-cost``."""
    command = click.option(
        "--max-cost", metavar="DOLLARS", help="Never spend more than this on calls."
    )(command)
    return click.option("--target", type=click.IntRange(min=1), help="Records to keep.")(command)


def with_budget(overrides: tuple[str, ...], target: int | None, max_cost: str | None) -> list[str]:
    """The overrides, with what ``--target`` and ``--max-cost`` say behind them."""
    combined = list(overrides)
    if target is not None:
        combined.append(f"generate.target={target}")
    if max_cost is not None:
        combined.append(f"generate.max_cost={max_cost.removeprefix('$')}")
    return combined


def console(stderr: bool = False) -> Console:
    """A rich console; plain text where the output is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty())


def say_aside(message: str) -> None:
    """Say what is no result, such as progress: on standard error."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """`value` (built-ins and msgspec structs) as one JSON document on standard output."""
    import msgspec
    import orjson

    plain = msgspec.to_builtins(value)
    click.echo(orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode())


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a clean stop, and the second into an abort."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stop: Callable[[], None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._asked = False

    def arm(self, stop: Callable[[], None]) -> None:
        """From now on the first signal calls `stop`."""
        self._stop = stop

    def signalled(self) -> None:
        """Handle a signal, in the event loop."""
        if self._asked or self._stop is None:
            if self._task is not None:
                self._task.cancel()
            return
        self._asked = True
        self._say("finishing the calls in flight, which are paid for; again to stop at once")
        self._stop()

    def run(self, work: Coroutine[Any, Any, Result], *, private: bool) -> Result:
        """Run `work` to its end under this handler, on the loop that `engine.loop` chooses.

        Raises `Interrupted` when aborted.
        """
        from selfinstruct.engine import loop

        async def guarded() -> Result:
            self._task = asyncio.current_task()
            restore = _handle_signals(self.signalled)
            try:
                return await work
            except asyncio.CancelledError:
                raise Interrupted(
                    "stopped at once; calls that were in flight may have been billed and are "
                    "listed as such, the same command continues"
                ) from None
            finally:
                restore()

        return loop.run(guarded(), private=private)


def _handle_signals(handler: Callable[[], None]) -> Callable[[], None]:
    """Call `handler` in the running loop on SIGINT and SIGTERM; returns what undoes it."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def arrived(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(handler)

    for number in signals:
        try:
            loop.add_signal_handler(number, handler)
        except NotImplementedError:  # Windows
            signal.signal(number, arrived)

    def restore() -> None:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])

    return restore
