"""The plan of a training, before any weight is loaded: what it takes, and whether it fits.

    selfinstruct train-student RUN --plan

The size is that of the model's config, the batches are those of the real records in their real
order, and the memory and the speed are those of the machine found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.planning.accelerators import known_gpu
from selfinstruct.steps.planning.batches import largest, micro_batches
from selfinstruct.steps.planning.instead import what_would
from selfinstruct.steps.planning.job import (
    ENOUGH_TOKENS,
    Job,
    choose_micro,
    job_memory,
    recomputes,
    share_of,
)
from selfinstruct.steps.planning.memory import (
    GIB,
    USABLE,
    Device,
    Memory,
    Method,
    merging_memory,
)
from selfinstruct.steps.planning.model import ModelSize
from selfinstruct.steps.planning.room import Room
from selfinstruct.steps.planning.speed import (
    CALIBRATION_SECONDS,
    Speed,
    gpu_speed,
    processor_speed,
    step_flops,
    training_seconds,
)
from selfinstruct.steps.planning.throughput import Throughput

# A GPU under training load draws about this share of its limit; assumed.
DRAWN = 0.85


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
    micro = choose_micro(model, job, room)
    job = msgspec.structs.replace(job, micro_batch_size=micro)
    batches = micro_batches(job.lengths, micro, packed=job.throughput.packing)
    most = largest(batches)
    memory = job_memory(model, job, room, most.rows, most.length)
    shapes = [job.attended(batch.rows, batch.length) for batch in batches]
    speed = _speed(model, job, room, shapes[0], calibration)
    seconds = None if speed is None else _seconds(model, job, room, shapes, speed)
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
        accumulation=share_of(job, room) // micro,
        batch_size=job.batch_size,
        longest=job.longest,
        recompute=recompute,
        examples=len(job.lengths),
        steps=-(-len(job.lengths) // job.batch_size),
        epochs=job.epochs,
        tokens=sum(job.lengths),
        padded_tokens=sum(batch.positions for batch in batches),
        memory=memory,
        merging=merging_memory(model, job.method, room.device, bf16=room.bf16),
        need=memory.total,
        have=room.usable,
        flops=sum(step_flops(model, job.method, *shape) for shape in shapes),
        seconds=seconds,
        speed=speed,
        cost=None if seconds is None else round(hour_price * seconds / 3600),
        kwh=None if seconds is None else _kwh(room, seconds),
        instead=[] if fits else what_would(model, job, room),
        throughput=job.throughput,
    )


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


def _speed(
    model: ModelSize, job: Job, room: Room, first: tuple[int, int], calibration: float
) -> Speed | None:
    """What one process reaches, on a processor timed with as many rows as the `first` batch has."""
    if room.device == "cuda":
        return gpu_speed(room.name, model)
    rows = min(ENOUGH_TOKENS["cpu"], math.prod(first))
    mixed = room.mixed and job.method != "qlora"
    return processor_speed(model, rows, calibration, mixed=mixed)


def _seconds(
    model: ModelSize, job: Job, room: Room, shapes: Sequence[tuple[int, int]], speed: Speed
) -> float:
    """Seconds to train on micro-batches of `shapes`, of which each process takes its share."""
    return training_seconds(
        model,
        job.method,
        shapes[:: room.processes],
        speed,
        recompute=bool(job.recompute),
        answers=job.answers if job.sparse_head and model.plain_head else None,
    )


def _kwh(room: Room, seconds: float) -> float | None:
    """What the GPUs draw in so many seconds; None where nothing is known of them."""
    found = known_gpu(room.name) if room.device == "cuda" else None
    if found is None:
        return None
    return found.watts * DRAWN * room.processes * seconds / 3.6e6
