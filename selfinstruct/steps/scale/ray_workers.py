"""A Ray cluster's workers: tasks of a dead node are done again by the others.

Ray does that by itself, task by task, as the tasks are pure functions over files. Daft's own way
over Ray runs a whole query, which waits without end for what a dead node held.

Ray's driver writes to standard output what it likes, and ends its process when the cluster's head
is gone. So it is a process of its own, and this one says what became of it.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import MissingDependency, SelfInstructError, UserError
from selfinstruct.steps.scale.plan import Plan
from selfinstruct.steps.scale.runner import SILENT
from selfinstruct.steps.scale.workers import Task, perform

RETRIES = 5  # of a task whose worker or node died
POLL_S = 2.0
EMPTY_S = 120.0  # how long the cluster may have no processor left before the job ends
STALL_S = 3600.0  # how long no task may end, where nodes live
AGAIN = "the same command goes on from there"


class OnRay:
    """A Ray cluster.

    Args:
        address: of its head, or ``auto``.
        log: a file for what Ray says.
        tell: is given lines about the progress, and about nodes that died.

    Raises `MissingDependency`, or `UserError` where it cannot be reached.
    """

    def __init__(self, address: str, log: Path, tell: Callable[[str], None]) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingDependency("ray", "scale", "filtering with --ray")
        os.environ.update(SILENT)
        self._address, self._tell = address, tell
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._driver = context.Process(target=_drive, args=(address, log, theirs), daemon=True)
        self._driver.start()
        theirs.close()  # so that the pipe ends when the driver does
        self._answer("start")

    def run(self, stage: str, task: Task, plan: Plan, count: int) -> list[dict[str, int]]:
        """What the tasks found, in order."""
        self._tell(f"{stage}: {count} tasks")
        self._pipe.send((stage, task, plan, count))
        found: list[dict[str, int]] = self._answer(stage)
        return found

    def _answer(self, stage: str) -> Any:
        """What the driver says, once it is no mere line to tell."""
        while True:
            try:
                kind, said = self._pipe.recv()
            except EOFError:
                raise UserError(
                    f"--ray {self._address}: the cluster's head was lost in the stage {stage!r}; "
                    f"{AGAIN}"
                ) from None
            if kind == "found":
                return said
            if kind == "wrong":
                raise UserError(said)
            if kind == "bug":
                raise RuntimeError(said)
            self._tell(said)

    def close(self) -> None:
        """Leave the cluster; it goes on."""
        self._pipe.close()
        self._driver.join(10)
        self._driver.terminate()
        self._driver.join(10)
        self._driver.kill()


def _drive(address: str, log: Path, pipe: Connection) -> None:
    """The driver's process: stages come through `pipe`, and answers go back."""
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        driver = _Driver(address, lambda line: pipe.send(("tell", line)))
        pipe.send(("found", None))
        while True:
            pipe.send(("found", driver.run(*pipe.recv())))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        sys.exit()
    except SelfInstructError as error:
        pipe.send(("wrong", str(error)))
    except Exception:  # noqa: BLE001 - it is raised in the process that waits
        pipe.send(("bug", traceback.format_exc()))


class _Driver:
    """Gives tasks to the cluster, and watches its nodes."""

    def __init__(self, address: str, tell: Callable[[str], None]) -> None:
        import ray

        self._ray, self._address = ray, address
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = str(error).split("\n", 1)[0]
            raise UserError(f"--ray {address}: no Ray cluster is reached there ({said})") from error
        self._watch = Watch(ray.nodes(), tell, time.monotonic())

    def run(self, stage: str, task: Task, plan: Plan, count: int) -> list[dict[str, int]]:
        """What the tasks found, in order."""
        ray = self._ray
        remote = ray.remote(max_retries=RETRIES, scheduling_strategy="SPREAD")(_perform)
        shared = ray.put(plan)
        number_of = {remote.remote(stage, task, shared, at): at for at in range(count)}
        found: dict[int, dict[str, int]] = {}
        pending = list(number_of)
        self._watch.begin(time.monotonic())
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_S)
            found |= {number_of[one]: self._result(one, stage) for one in done}
            self._watch.look(stage, ray.nodes, bool(done), time.monotonic())
        return [found[at] for at in range(count)]

    def _result(self, reference: Any, stage: str) -> dict[str, int]:
        try:
            found, wrong = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise  # a fault of ours
        except self._ray.exceptions.RayError as error:
            said = str(error).split("\n", 1)[0]
            raise UserError(
                f"--ray {self._address}: a task of the stage {stage!r} was lost {RETRIES + 1} "
                f"times ({said}); {AGAIN}"
            ) from error
        if wrong:
            raise UserError(wrong)
        result: dict[str, int] = found
        return result


class Watch:
    """Looks at a cluster's nodes while the tasks of a stage are awaited.

    Args:
        nodes: what `ray.nodes()` says now.
        tell: is given a line for each node that died.
        now: a clock's seconds.
    """

    def __init__(
        self, nodes: list[dict[str, Any]], tell: Callable[[str], None], now: float
    ) -> None:
        self._tell = tell
        self._dead = {node["NodeID"] for node in nodes if not node["Alive"]}
        self._looked = self._staffed = self._ended = now

    def begin(self, now: float) -> None:
        """A stage begins."""
        self._ended = now

    def look(
        self, stage: str, nodes: Callable[[], list[dict[str, Any]]], ended: bool, now: float
    ) -> None:
        """Look, if it is time to; `ended` says whether a task has since the last call.

        Raises `UserError` where nobody is left to do the tasks, or none has ended for long.
        """
        self._ended = now if ended else self._ended
        if now - self._ended > STALL_S:
            raise UserError(
                f"no task of the stage {stage!r} has ended for {STALL_S / 60:.0f} minutes, though "
                f"nodes live; {AGAIN}"
            )
        if now - self._looked < POLL_S / 2:
            return
        self._looked = now
        found = nodes()
        for node in found:
            if not node["Alive"] and node["NodeID"] not in self._dead:
                self._dead.add(node["NodeID"])
                where = node["NodeManagerAddress"]
                self._tell(f"{stage}: the node {where} died; its tasks are done again")
        if any(node["Alive"] and node["Resources"].get("CPU") for node in found):
            self._staffed = now
        elif now - self._staffed > EMPTY_S:
            raise UserError(
                f"no worker node is left in the stage {stage!r}; when there are nodes again, "
                f"{AGAIN}"
            )


def _perform(stage: str, task: Task, plan: Plan, number: int) -> tuple[dict[str, int], str]:
    """What the task found, or what is to be told to the user."""
    try:
        return perform(stage, task, plan, number), ""
    except SelfInstructError as error:
        return {}, str(error)
    except OSError as error:
        said = error.strerror or str(error)
        return {}, f"{platform.node()}: a task of the stage {stage!r} failed ({said}); {AGAIN}"
