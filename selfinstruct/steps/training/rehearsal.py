"""Several processes: the largest micro-batch is tried before the first step, and all agree.

Once a step's gradients are being put together, a process that runs out of memory leaves the others
waiting for ever. So each process first does the work of the largest micro-batch by itself, with
the memory that the optimizer will take set aside; where one of them runs out, all of them go on
with smaller pieces. Nothing is learned from it, and no random number is used up.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

# What in a trainer's loss talks to other processes, for figures that are not used here.
_GATHERS = ("gather_for_metrics", "gather", "reduce")
_COUNTED = ("_metrics", "_total_train_tokens")


def agreed(failed: bool, device: Any) -> bool:
    """Whether any process failed; each of them asks, and waits for the others."""
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(failed), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def rehearse(
    trainer: Any, attempt: Callable[[], Any], halve: Callable[[], bool], moments: float
) -> None:
    """Have every process do `attempt`, in pieces that `halve` makes smaller, until all can.

    Args:
        trainer: whose loss it is; its counters, gradients and random numbers are left as they were.
        attempt: does the largest micro-batch, the same one everywhere; returns an error where
            memory ran out.
        halve: makes the pieces smaller, everywhere alike; False where they cannot be.
        moments: bytes of a trained parameter that the optimizer adds at its first step.

    Raises the error, in every process, where pieces of one example are too large.
    """
    import torch

    gpus = [torch.cuda.current_device()] if trainer.args.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), _by_itself(trainer):
        while True:
            reserved = _moments(trainer, moments)
            failure = attempt()
            del reserved
            trainer.model.zero_grad(set_to_none=True)
            failed = isinstance(failure, BaseException)
            if not agreed(failed, trainer.args.device):
                return
            if not halve():
                raise (
                    failure
                    if failed
                    else torch.OutOfMemoryError("another process ran out of memory")
                )


def _moments(trainer: Any, each: float) -> Any:
    """As much memory as the optimizer will take at its first step; None once it has it."""
    import torch

    if trainer.optimizer is not None and trainer.optimizer.state_dict()["state"]:
        return None
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return torch.empty(int(each * trained), dtype=torch.uint8, device=trainer.args.device)


@contextlib.contextmanager
def _by_itself(trainer: Any) -> Iterator[None]:
    """Keep the loss from talking to other processes, and from being counted."""
    kept = {
        name: copy.deepcopy(getattr(trainer, name)) for name in _COUNTED if name in vars(trainer)
    }
    for name in _GATHERS:
        setattr(trainer.accelerator, name, lambda value, *_, **__: value)
    try:
        yield
    finally:
        for name in _GATHERS:
            delattr(trainer.accelerator, name)  # the class's own again
        for name, value in kept.items():
            setattr(trainer, name, value)
