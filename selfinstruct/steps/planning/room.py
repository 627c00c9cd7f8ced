"""Where a training would run: the device, its memory, the processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from selfinstruct.steps import machine
from selfinstruct.steps.planning.memory import USABLE, Device


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Where a training would run: each of `processes` has `memory` bytes; `name` is the GPU's.

    `sharded`: they split the model among them. `mixed`: a processor that computes in bfloat16.
    `bf16`: a GPU that does, as all but old ones do; those compute in float32.
    """

    device: Device
    memory: int
    name: str = ""
    processes: int = 1
    sharded: bool = False
    mixed: bool = False
    bf16: bool = True

    @property
    def usable(self) -> int:
        """Bytes that one process can have."""
        return int(self.memory * USABLE[self.device])

    @property
    def shards(self) -> int:
        """Processes among which weights, gradients and optimizer states are split."""
        return self.processes if self.sharded else 1

    @property
    def together(self) -> bool:
        """Whether processes with a whole model each put their gradients together."""
        return self.processes > 1 and not self.sharded


def find_room(device: str, processes: int, *, sharded: bool = False) -> Room:
    """The room of each of `processes` on `device` ("cuda", "mps" or "cpu").

    A processor's memory is shared out among the processes on this machine; GPUs are one each, and
    the smallest of those used decides. Other machines are taken to be like this one.
    """
    import torch

    from selfinstruct.steps.training.runtime import training_dtype

    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    kind: Device = "cuda" if device == "cuda" else "mps" if device == "mps" else "cpu"
    if kind == "cuda":
        used = range(min(local, torch.cuda.device_count()))
        found = [torch.cuda.get_device_properties(at) for at in used]
        least = min(found, key=lambda one: one.total_memory)
        size, name = int(least.total_memory), str(least.name)
    else:
        size, name = machine.memory()[0] // local, ""
    bf16 = training_dtype(kind) is torch.bfloat16
    return Room(
        device=kind,
        memory=size,
        name=name,
        processes=processes,
        sharded=sharded,
        mixed=bf16 and kind == "cpu" and not sharded,
        bf16=bf16 or kind != "cuda",
    )


def is_sharded(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether accelerate was told to split the model among the processes (FSDP, DeepSpeed)."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(environ.get(name, "").lower() == "true" for name in names)
