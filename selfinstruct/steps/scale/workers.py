"""Who does the tasks of a stage: processes on this machine, or a Ray cluster (`ray_workers`).

A task reads files and writes files, and a marker when it has ended. So it can be done again, by
anyone, at any time, and what has its marker is not done twice: not after a worker died, and not
when the same command is given again after the job was stopped.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from selfinstruct.core.errors import UserError
from selfinstruct.steps.scale.plan import Plan
from selfinstruct.steps.scale.runner import SILENT

Task = Callable[[Plan, int], dict[str, int]]
"""Does the task of a number in a stage, and says what it found. It can be pickled."""

JOB = "job.json"  # in the work folder
DONE = "done"  # the markers' folder
MOST_PROCESSES = 16  # each takes memory


class Workers(Protocol):
    """Does the tasks of one stage after the other."""

    def run(self, stage: str, task: Task, plan: Plan, count: int) -> list[dict[str, int]]:
        """What the tasks 0 to `count` of a stage found, in order. Raises `UserError`."""
        ...


def perform(stage: str, task: Task, plan: Plan, number: int) -> dict[str, int]:
    """Do a task, unless it was done before; what it found."""
    if not (plan.work / JOB).is_file():
        raise UserError(
            f"{plan.work}: not seen by {platform.node()}; with --ray, input and output must be "
            "on storage that every node sees under the same path"
        )
    marker = _marker(plan, stage, number)
    if marker.is_file():
        found: dict[str, int] = json.loads(marker.read_text("utf-8"))
        return found
    with _no_collection():
        found = task(plan, number)
    marker.parent.mkdir(parents=True, exist_ok=True)
    beside = marker.with_name(f".{marker.name}.{uuid.uuid4().hex}")
    beside.write_text(json.dumps(found), "utf-8")
    beside.replace(marker)
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
    """Tasks make millions of tuples but no cycles, and looking for these takes a third longer."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _marker(plan: Plan, stage: str, number: int) -> Path:
    return plan.work / DONE / f"{stage}-{number:05d}.json"


class Here:
    """Processes on this machine, one a core; a stage of one task is done in this one."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._pool: ProcessPoolExecutor | None = None
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        self._count = min(MOST_PROCESSES, usable or os.cpu_count() or 1)

    def run(self, stage: str, task: Task, plan: Plan, count: int) -> list[dict[str, int]]:
        """What the tasks found, in order."""
        self._tell(f"{stage}: {count} tasks")
        if count == 1 or self._count == 1:
            return [perform(stage, task, plan, number) for number in range(count)]
        if self._pool is None:
            os.environ.update(SILENT)
            # A forked process would miss the threads that libraries have started in this one.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context)
        tasks = [self._pool.submit(perform, stage, task, plan, number) for number in range(count)]
        try:
            return [one.result() for one in tasks]
        except BrokenProcessPool as error:
            raise UserError(
                f"a worker process was killed in the stage {stage!r}, perhaps for want of memory; "
                "the same command goes on from there"
            ) from error
        finally:
            for one in tasks:
                one.cancel()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
