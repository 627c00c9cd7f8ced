"""A process of its own for tests of `--engine daft`, as Daft's runner is chosen once a process.

python -m tests.scale_child DATA OUT               filters, and prints the funnel
python -m tests.scale_child DATA OUT STAGE WHAT    on two Ray nodes, where something dies meanwhile
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.stages.filter_scale import filter_at_scale
from selfinstruct.steps.scale import plan, ray_workers, runner, shards
from selfinstruct.steps.scale.workers import Task


def main() -> None:
    """Filter, and print what came of it."""
    data, out, *rest = sys.argv[1:]
    shards.SHARD_ROWS, plan.PART_ROWS = 100, 200  # several tasks for a small file
    address = two_nodes(Path(f"{out}.doomed"), *rest) if rest else None
    funnel = filter_at_scale(data, out, ray=address, tell=tell)
    sys.stdout.write(msgspec.json.encode(funnel).decode() + "\n")


def tell(line: str) -> None:
    """Progress goes where no result is read."""
    sys.stderr.write(f"{line}\n")


def two_nodes(doomed: Path, stage: str, what: str) -> str:
    """A head without processors for tasks, and two workers; one, or the head, dies in `stage`."""
    os.environ.update(runner.SILENT)
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    workers = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
    cluster.wait_for_nodes()
    run = ray_workers.OnRay.run

    def run_stuck(
        self: ray_workers.OnRay, name: str, task: Task, *more: Any
    ) -> list[dict[str, int]]:
        return run(self, name, partial(stuck, doomed, task) if name == stage else task, *more)

    ray_workers.OnRay.run = run_stuck  # type: ignore[method-assign]

    def kill() -> None:
        while not (doomed.is_file() and doomed.read_text()):
            time.sleep(0.05)
        dying = {
            "worker": [node for node in workers if node.node_id == doomed.read_text()],
            "workers": workers,
            "head": [cluster.head_node],
        }
        for node in dying[what]:
            cluster.remove_node(node, allow_graceful=False)
        sys.stderr.write(f"killed in the stage {stage}\n")

    threading.Thread(target=kill, daemon=True).start()
    return str(cluster.address)


def die(whole: plan.Plan, number: int) -> dict[str, int]:
    """A task whose process is killed."""
    os._exit(9)


def stuck(doomed: Path, task: Task, whole: plan.Plan, number: int) -> dict[str, int]:
    """Do the task; on the first node to come here, which then is `doomed`, do not end."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    with contextlib.suppress(FileExistsError), doomed.open("x") as file:
        file.write(node)
    while doomed.read_text() in ("", node):
        time.sleep(0.1)
    return task(whole, number)


if __name__ == "__main__":
    # Under a name that other processes find what is handed to them by.
    importlib.import_module("tests.scale_child").main()
