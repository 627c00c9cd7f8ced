"""The plan of a training, before any weight is loaded: what it takes, and whether it fits.

    selfinstruct train-student RUN --plan

The size is that of the model's config, the batches are those of the real records in their real
order, and the memory and the speed are those of the machine found.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.planning.accelerators import known_gpu
from selfinstruct.steps.planning.instead import what_would
from selfinstruct.steps.planning.memory import (
    GIB,
    RECOMPUTE_ABOVE,
    USABLE,
    Device,
    Memory,
    Method,
    Optimizer,
    merging_memory,
    training_memory,
)
from selfinstruct.steps.planning.model import ModelSize
from selfinstruct.steps.planning.speed import (
    CALIBRATION_SECONDS,
    Speed,
    gpu_speed,
    processor_speed,
    step_flops,
    training_seconds,
)
from selfinstruct.steps.planning.throughput import Throughput

# Padded tokens of a micro-batch beyond which a larger one is no faster.
ENOUGH_TOKENS: dict[Device, int] = {"cuda": 16_384, "cpu": 2_048, "mps": 4_096}
# Tokens of a micro-batch from which on a large model keeps a GPU busy.
KEPT_TOKENS = 4_096
# A GPU under training load draws about this share of its limit; assumed.
DRAWN = 0.85


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Where a training would run: each of `processes` has `memory` bytes; `name` is the GPU's.

    `mixed`: a processor that computes in bfloat16.
    """

    device: Device
    memory: int
    name: str = ""
    processes: int = 1
    sharded: bool = False
    mixed: bool = False

    @property
    def usable(self) -> int:
        """Bytes that one process can have."""
        return int(self.memory * USABLE[self.device])


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
    max_length: int
    epochs: float
    recompute: bool | None = None
    optimizer: Optimizer = "adamw"
    throughput: Throughput = Throughput()
    sparse_head: bool = True
    answers: float = 1.0


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The plan. Memory is bytes of one process; `have` is what such a process can have.

    `seconds` is None where nothing is known of the GPU's speed, `kwh` where nothing is known of
    the draw. `cost` is in picodollars. `instead` says what would fit where this does not.
    `throughput` is what makes it fast.
    """

    method: Method
    device: Device
    device_name: str
    processes: int
    sharded: bool
    parameters: int
    trainable: int
    micro_batch_size: int
    accumulation: int
    batch_size: int
    longest: int
    recompute: bool
    examples: int
    steps: int
    epochs: float
    tokens: int
    padded_tokens: int
    memory: Memory
    merging: int
    need: int
    have: int
    flops: float
    seconds: float | None
    speed: Speed | None
    cost: int | None
    kwh: float | None
    instead: list[str]
    throughput: Throughput = Throughput()

    @property
    def fits(self) -> bool:
        """Whether one process has the memory it needs to train."""
        return self.need <= self.have


def foresee(
    model: ModelSize,
    job: Job,
    room: Room,
    *,
    hour_price: int = 0,
    calibration: float = CALIBRATION_SECONDS,
) -> Outlook:
    """The plan of `job` in `room`; `hour_price` is picodollars an hour of the machine.

    Without a GPU it times a few products of matrices for `calibration` seconds.
    """
    recompute = recomputes(model, job, room)
    job = msgspec.structs.replace(job, recompute=recompute)
    micro = job.micro_batch_size or choose_micro(model, job, room)
    share = max(1, job.batch_size // room.processes)
    micro = _divisor(share, micro)
    batches = [
        _computed(job, *batch)
        for batch in micro_batches(job.lengths, micro, packed=job.throughput.packing)
    ]
    memory = _memory(model, job, room, *_largest(batches))
    speed = (
        gpu_speed(room.name, model)
        if room.device == "cuda"
        else processor_speed(
            model,
            min(ENOUGH_TOKENS["cpu"], _tokens(batches[0])),
            calibration,
            mixed=room.mixed and job.method != "qlora",
        )
    )
    seconds = None
    if speed is not None:
        mine = batches[:: room.processes]
        seconds = training_seconds(
            model,
            job.method,
            mine,
            speed,
            recompute=recompute,
            answers=job.answers if job.sparse_head and model.plain_head else None,
        )
    fits = memory.total <= room.usable
    return Outlook(
        method=job.method,
        device=room.device,
        device_name=room.name,
        processes=room.processes,
        sharded=room.sharded,
        parameters=model.parameters,
        trainable=model.parameters if job.method == "full" else model.adapter(job.rank),
        micro_batch_size=micro,
        accumulation=share // micro,
        batch_size=job.batch_size,
        longest=max(job.lengths),
        recompute=recompute,
        examples=len(job.lengths),
        steps=-(-len(job.lengths) // job.batch_size),
        epochs=job.epochs,
        tokens=sum(job.lengths),
        padded_tokens=sum(job.lengths if job.throughput.packing else map(_tokens, batches)),
        memory=memory,
        merging=merging_memory(model, job.method, room.device),
        need=memory.total,
        have=room.usable,
        flops=sum(step_flops(model, job.method, *batch) for batch in batches),
        seconds=seconds,
        speed=speed,
        cost=None if seconds is None else round(hour_price * seconds / 3600),
        kwh=_kwh(room, seconds),
        instead=[] if fits else what_would(model, job, room),
        throughput=job.throughput,
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
    longest = max(job.lengths)
    share = max(1, job.batch_size // room.processes)
    rows = job.micro_batch_size or max(1, min(share, KEPT_TOKENS // longest))
    kept = msgspec.structs.replace(job, recompute=False)
    return _memory(model, kept, room, rows, longest).total > room.usable


def choose_micro(model: ModelSize, job: Job, room: Room) -> int:
    """The largest micro-batch that fits and is worth it; 1 where none fits."""
    share = max(1, job.batch_size // room.processes)
    longest = max(job.lengths)
    for micro in range(share, 1, -1):
        if share % micro or micro * longest > max(ENOUGH_TOKENS[room.device], longest):
            continue
        if _memory(model, job, room, micro, longest).total <= room.usable:
            return micro
    return 1


def refuse(plan: Outlook, name: str) -> None:
    """Raises `UserError` where the training cannot fit whatever the counting's error.

    A plan between what can be had and what there is may fit: the counts are rounded up.
    """
    there = plan.have / USABLE[plan.device]
    if plan.need <= there:
        return
    what = (
        plan.device_name
        or {"cpu": "this machine", "mps": "this Mac", "cuda": "the GPU"}[plan.device]
    )
    raise UserError(
        f"student.method {plan.method} of {name} needs {plan.need / GIB:.1f} GiB to train, and "
        f"{what} has {there / GIB:.1f}; " + ("; ".join(plan.instead) or "use a larger machine")
    )


def micro_batches(
    lengths: Sequence[int], micro: int, *, packed: bool = False
) -> list[tuple[int, int]]:
    """Rows and length of each micro-batch, in training order; `packed` ones have no padding."""
    parts = (lengths[at : at + micro] for at in range(0, len(lengths), micro))
    if packed:  # as many tokens, as if all were of their mean length
        return [(len(part), -(-sum(part) // len(part))) for part in parts]
    return [(len(part), max(part)) for part in parts]


def _computed(job: Job, rows: int, length: int) -> tuple[int, int]:
    """Rows and length as attention sees them: a packed row may be one example to it."""
    return (1, rows * length) if job.throughput.squares else (rows, length)


def _memory(model: ModelSize, job: Job, room: Room, rows: int, length: int) -> Memory:
    rows, length = _computed(job, rows, length)
    return training_memory(
        model,
        job.method,
        room.device,
        rows=rows,
        length=length,
        rank=job.rank,
        recompute=job.recompute,
        optimizer=job.optimizer,
        shards=room.processes if room.sharded else 1,
        mixed=room.mixed,
        sparse_head=job.sparse_head and model.plain_head,
        answers=job.answers,
    )


def _largest(batches: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(batches, key=_tokens)


def _tokens(batch: tuple[int, int]) -> int:
    return batch[0] * batch[1]


def _divisor(share: int, limit: int) -> int:
    """The largest divisor of `share` that is not above `limit`, as the trainer takes it."""
    return next(size for size in range(min(limit, share), 0, -1) if share % size == 0)


def _kwh(room: Room, seconds: float | None) -> float | None:
    found = known_gpu(room.name) if room.device == "cuda" else None
    if found is None or seconds is None:
        return None
    return found.watts * DRAWN * room.processes * seconds / 3.6e6
