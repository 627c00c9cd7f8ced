"""A process of a training that FSDP2 splits among processors, where accelerate splits on GPUs only.

    python -m torch.distributed.run --nproc-per-node=2 sharded_child.py RUN PRECISION [STEP]

PRECISION is float32, or bfloat16 as on a GPU: the frozen base in it too. At STEP it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import accelerate.state
import torch
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import train_student
from selfinstruct.steps.training import inputs, runtime

_plain = accelerate.state.AcceleratorState.__init__


def split_on_processors(self: Any, *given: Any, fsdp_plugin: Any = None, **named: Any) -> None:
    """What accelerate does for GPUs, and leaves out for processors."""
    first = not accelerate.state.AcceleratorState._shared_state
    _plain(self, *given, fsdp_plugin=fsdp_plugin, **named)
    if first and fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin
        accelerate.state.PartialState._shared_state["distributed_type"] = self.distributed_type


def refuse(*_: Any) -> None:
    """In the place of what puts off sharing gradients out: it keeps those of all weights."""
    raise AssertionError("gradients of the whole model are kept between micro-batches")


def main() -> None:
    """Train, and print the losses."""
    folder, precision, *kill = sys.argv[1:]
    accelerate.state.AcceleratorState.__init__ = split_on_processors
    FSDPModule.set_requires_gradient_sync = refuse
    low = precision == "bfloat16"
    runtime.has_bfloat16 = lambda: low
    if low:
        inputs.weight_dtype = lambda _, trained: torch.float32 if trained else torch.bfloat16

    def told(progress: Any) -> None:
        if kill and progress.step >= int(kill[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    summary = train_student(RunFolder(Path(folder)), on_progress=told)
    if os.environ["RANK"] == "0":
        sys.stdout.write(json.dumps([step.loss for step in summary.losses]) + "\n")


main()
