"""The processes of one training: started on this machine as torchrun does, heard as one."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence
from datetime import timedelta

from selfinstruct.core.ids import fingerprint

STORE_SECONDS = 5


def gpus_to_use(batch_size: int, device: str) -> int:
    """How many GPUs a training on `device` uses: the most that share `batch_size` out evenly.

    1 where there is none, or where the recipe asks for another device.
    """
    import torch

    there = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    return next((count for count in range(there, 1, -1) if batch_size % count == 0), 1)


def run_processes(arguments: Sequence[str], processes: int) -> int:
    """Run ``python -m`` with `arguments` in `processes` that train together.

    Returns the exit code: that of the first process that failed, with the others ended.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Each process says itself what went wrong; the launcher's own account would bury it.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, _cores() // processes))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, entrypoint=sys.executable)("-m", *arguments)
    except ChildFailedError as error:
        code = int(error.get_first_failure()[1].exitcode)
        return code if code > 0 else 128 - code  # ended by a signal, as a shell says it
    return 0


def is_first_to_say(message: str) -> bool:
    """Whether no other process of this training has said `message`.

    They ask the store that torchrun's agent keeps for them. True where there is none, so that
    nothing goes unsaid.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore

    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=STORE_SECONDS),
            wait_for_workers=False,
        )
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return bool(store.add(f"said/{again}/{fingerprint(message)}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):  # torch's own are RuntimeErrors
        return True


def _cores() -> int:
    from selfinstruct.steps.machine import cores

    return cores()
