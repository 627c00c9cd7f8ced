"""A server that speaks OpenAI's and Anthropic's protocols, for tests, dry runs and benchmarks.

Run it as a process, which prints its address on the first line of its output::

    python -m selfinstruct.testing.fake_server --port 0 --latency-ms 200 --sigma 0.7 \
        --fault 429=0.05 --fault reset=0.01

or beside a test, in a thread of its own: ``with running(Options(seed=1)) as server: server.url``.

Replies are a function of the seed and the request's body alone (see `forms`), so two runs that ask
the same get the same. ``GET /stats`` says what was asked and served.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfinstruct.testing import batches, faults, forms
from selfinstruct.testing.handlers import FakeServer, Options

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["FakeServer", "Options", "Running", "listening", "running"]


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    url: str
    """Its address, such as ``http://127.0.0.1:41234``; OpenAI's base URL is that plus ``/v1``."""
    server: FakeServer


@contextlib.asynccontextmanager
async def listening(server: FakeServer, port: int = 0) -> AsyncIterator[Running]:
    """Serve on a loopback port (a free one for 0) in the running event loop."""
    from aiohttp import web

    runner = web.AppRunner(
        server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
        await site.start()
        yield Running(f"http://127.0.0.1:{runner.addresses[0][1]}", server)
    finally:
        accepting = runner.server
        await runner.cleanup()
        if accepting is not None:
            await _end_late_connections(accepting)


async def _end_late_connections(server: web.Server) -> None:
    """Close what was accepted while the server closed, which asyncio hands over a moment later."""
    under_way = {
        task
        for task in asyncio.all_tasks()
        if "_accept_connection" in getattr(task.get_coro(), "__qualname__", "")
    }
    if under_way:
        await asyncio.wait(under_way, timeout=5)
    for _ in range(3):  # made, closed, lost: each is a turn of the loop
        await asyncio.sleep(0)
        await server.shutdown(0.0)
    await asyncio.sleep(0)


@contextlib.contextmanager
def running(options: Options | None = None, port: int = 0) -> Iterator[Running]:
    """Serve in a thread with an event loop of its own, until the block is left."""
    fake = FakeServer(options)
    ready: Future[Running] = Future()
    leave: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        done = asyncio.Event()
        async with listening(fake, port) as server:
            leave.set_result((asyncio.get_running_loop(), done))
            ready.set_result(server)
            await done.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except OSError as error:  # the port is taken
            ready.set_exception(error)

    thread = threading.Thread(target=run, name="fake server", daemon=True)
    thread.start()
    server = ready.result(timeout=10)
    try:
        yield server
    finally:
        loop, done = leave.result()
        loop.call_soon_threadsafe(done.set)
        thread.join(timeout=10)


def _arguments(argv: Sequence[str] | None) -> tuple[Options, int]:
    parser = argparse.ArgumentParser(prog="python -m selfinstruct.testing.fake_server")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="median time to a reply")
    parser.add_argument("--sigma", type=float, default=0.0, help="lognormal spread of the latency")
    parser.add_argument("--bad", type=float, default=forms.Share().bad, help="share of bad records")
    parser.add_argument("--cut", type=float, default=forms.Share().cut, help="replies cut short")
    parser.add_argument("--refusals", type=float, default=forms.Share().refusals)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE")
    parser.add_argument(
        "--script", default="", metavar="NAME,NAME", help="faults of the first calls"
    )
    parser.add_argument("--template", choices=("llama.cpp", "vllm", "none"), default="llama.cpp")
    parser.add_argument("--key", default="", help="the key it wants to see")
    parser.add_argument("--batch-seconds", type=float, default=0.0, help="time a batch takes")
    parser.add_argument("--batch-errors", type=float, default=0.0, help="share of failing items")
    parser.add_argument("--reply-bytes", type=int, default=0, help="one reply of so many for all")
    given = parser.parse_args(argv)
    try:
        shares = {name: float(share) for name, _, share in (f.partition("=") for f in given.fault)}
        script = tuple(filter(None, given.script.split(",")))
        faults.check(shares, script)
    except ValueError as error:
        parser.error(str(error))
    options = Options(
        seed=given.seed,
        latency_ms=given.latency_ms,
        sigma=given.sigma,
        share=forms.Share(given.bad, given.cut, given.refusals),
        faults=shares,
        script=script,
        template=given.template,
        key=given.key,
        batch=batches.Options(seconds=given.batch_seconds, errors=given.batch_errors),
        reply_bytes=given.reply_bytes,
    )
    return options, given.port


async def _main(options: Options, port: int) -> None:
    stop = asyncio.Event()
    # Windows has no signal handlers in its loops: there the process simply ends.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(FakeServer(options), port) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_main(*_arguments(None)))
