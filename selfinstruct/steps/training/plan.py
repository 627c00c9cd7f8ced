"""How a student is trained, and what came of each step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import msgspec

from selfinstruct.core.errors import RecipeError
from selfinstruct.steps.planning.batches import largest_divisor
from selfinstruct.steps.planning.memory import Optimizer
from selfinstruct.steps.planning.throughput import Throughput
from selfinstruct.steps.training.order import training_order


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one training; see `core.sections.student.StudentConfig` for their meaning.

    `throughput` is what makes it fast.
    """

    method: Literal["lora", "qlora", "full"]
    epochs: float
    max_steps: int | None
    learning_rate: float
    batch_size: int
    micro_batch_size: int
    warmup_ratio: float
    scheduler: Literal["cosine", "linear", "constant", "wsd"]
    weight_decay: float
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: Literal["all-linear"] | list[str]
    lora_whole: list[str]
    lora_rslora: bool
    lora_dora: bool
    save_steps: int
    seed: int
    device: str
    decay_ratio: float | None = None
    min_learning_rate_ratio: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    lora_plus_ratio: float | None = None
    max_grad_norm: float = 1.0
    neftune_alpha: float | None = None
    sparse_head: bool = True
    recompute: bool | Literal["auto"] = "auto"
    optimizer: Optimizer = "adamw"
    throughput: Throughput = Throughput()


class StepLog(msgspec.Struct, frozen=True):
    """One optimizer step: mean loss over its answer tokens, tokens without padding, seconds."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens: int
    seconds: float


def share_of(batch_size: int, processes: int) -> int:
    """A process's examples of each step. Raises `RecipeError` where they are not even."""
    share, left = divmod(batch_size, processes)
    if left or not share:
        raise RecipeError(
            f"student.batch_size: {batch_size} examples cannot be shared out evenly among "
            f"{processes} processes; make it a multiple of {processes}"
        )
    return share


def accumulation(plan: Plan, processes: int) -> tuple[int, int]:
    """Micro-batch size and micro-batches per step that make up `plan.batch_size` exactly.

    The micro-batch is the largest divisor that is not above `plan.micro_batch_size`. Raises
    `RecipeError` where the batch cannot be shared out evenly among `processes`.
    """
    share = share_of(plan.batch_size, processes)
    micro = largest_divisor(share, plan.micro_batch_size)
    return micro, share // micro


def arrange(lengths: Sequence[int], plan: Plan) -> tuple[Plan, list[int]]:
    """The plan as it is carried out, and the order of the examples with these `lengths`.

    With fewer examples than a step holds, a step is one pass over them.
    """
    if process_count() == 1:
        plan = msgspec.structs.replace(plan, batch_size=min(plan.batch_size, len(lengths)))
    order = training_order(
        lengths,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        seed=plan.seed,
        max_steps=plan.max_steps,
    )
    return plan, order


def process_count() -> int:
    """Processes that train together, as torchrun or accelerate tell each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes the results."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Return when every process that trains has come here; the trainer must have been made."""
    if process_count() > 1:
        import torch.distributed as dist

        dist.barrier()
