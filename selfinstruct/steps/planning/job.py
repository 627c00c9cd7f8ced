"""What would be trained, and what one process needs for it in a given room."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from selfinstruct.steps.planning.batches import largest_divisor, micro_batches
from selfinstruct.steps.planning.memory import (
    RECOMPUTE_ABOVE,
    Device,
    Memory,
    Method,
    Optimizer,
    training_memory,
)
from selfinstruct.steps.planning.model import ModelSize
from selfinstruct.steps.planning.room import Room
from selfinstruct.steps.planning.throughput import Throughput

# Padded tokens of a micro-batch beyond which a larger one is no faster.
ENOUGH_TOKENS: dict[Device, int] = {"cuda": 16_384, "cpu": 2_048, "mps": 4_096}
# A smaller micro-batch takes about as long as one of so many tokens.
BUSY_TOKENS: dict[Device, int] = {"cuda": 4_096, "cpu": 512, "mps": 1_024}
# Steps whose padding is compared, of a training's many.
COMPARED_STEPS = 64


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What would be trained: the settings, and the tokens of each example in training order.

    `recompute` and `micro_batch_size` are None where they are to be chosen. `answers` is the share
    of tokens with loss.
    """

    method: Method
    rank: int
    batch_size: int
    micro_batch_size: int | None
    lengths: Sequence[int]
    epochs: float
    recompute: bool | None = None
    optimizer: Optimizer = "adamw"
    throughput: Throughput = Throughput()
    sparse_head: bool = True
    answers: float = 1.0

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(self.lengths)

    def attended(self, rows: int, length: int) -> tuple[int, int]:
        """Rows and length as attention sees them: a packed row may be one example to it."""
        return (1, rows * length) if self.throughput.squares else (rows, length)


def job_memory(model: ModelSize, job: Job, room: Room, rows: int, length: int) -> Memory:
    """The peak of one process over micro-batches of `rows` examples of up to `length` tokens."""
    rows, length = job.attended(rows, length)
    return training_memory(
        model,
        job.method,
        room.device,
        rows=rows,
        length=length,
        rank=job.rank,
        recompute=job.recompute,
        optimizer=job.optimizer,
        shards=room.shards,
        together=room.together,
        mixed=room.mixed,
        bf16=room.bf16,
        sparse_head=job.sparse_head and model.plain_head,
        answers=job.answers,
    )


def recomputes(model: ModelSize, job: Job, room: Room) -> bool:
    """Whether activations are recomputed, where the job leaves it open.

    Up to a billion parameters they are not. Above, a GPU with room for a micro-batch that is worth
    its while keeps them: working them out again takes a third of its time.
    """
    if job.recompute is not None:
        return job.recompute
    if model.parameters <= RECOMPUTE_ABOVE:
        return False
    if room.device != "cuda":
        return True
    share = share_of(job, room)
    rows = job.micro_batch_size or max(1, min(share, BUSY_TOKENS["cuda"] // job.longest))
    kept = msgspec.structs.replace(job, recompute=False)
    return job_memory(model, kept, room, rows, job.longest).total > room.usable


def share_of(job: Job, room: Room) -> int:
    """Examples of one step that each process takes."""
    return max(1, job.batch_size // room.processes)


def choose_micro(model: ModelSize, job: Job, room: Room) -> int:
    """Examples of a micro-batch: what the job says, as far as it makes up a step exactly.

    Where the job leaves it open, the one that fits with the fewest tokens to compute, padding
    included: a larger one mixes more lengths. 1 where none fits.
    """
    share = share_of(job, room)
    if job.micro_batch_size is not None:
        return largest_divisor(share, job.micro_batch_size)
    enough = max(ENOUGH_TOKENS[room.device], job.longest)
    fitting = [
        micro
        for micro in range(share, 0, -1)
        if share % micro == 0
        and micro * job.longest <= enough
        and job_memory(model, job, room, micro, job.longest).total <= room.usable
    ]
    return min(fitting, key=lambda micro: _computed(job, room, micro), default=1)


def _computed(job: Job, room: Room, micro: int) -> int:
    """Tokens of the first steps in micro-batches of `micro`; a small one counts as a busy one."""
    lengths = job.lengths[: COMPARED_STEPS * job.batch_size]
    busy = BUSY_TOKENS[room.device]
    batches = micro_batches(lengths, micro, packed=job.throughput.packing)
    return sum(max(busy, batch.positions) for batch in batches)
