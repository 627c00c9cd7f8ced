"""What would fit where a training does not: each suggestion was counted, none is a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct.steps.fits import STUDENTS
from selfinstruct.steps.planning.memory import Memory, Method, training_memory
from selfinstruct.steps.planning.model import ModelSize

if TYPE_CHECKING:
    from selfinstruct.steps.planning.outlook import Job, Room

SHORTEST = 128
MOST_GPUS = 64


def what_would(model: ModelSize, job: Job, room: Room) -> list[str]:
    """The least changes that fit, each by itself, as settings to give; empty where none does."""
    found = [
        _recomputed(model, job, room),
        _smaller_batch(model, job, room),
        _shorter(model, job, room),
        _other_method(model, job, room),
        _more_gpus(model, job, room),
        _smaller_base(model, job, room),
    ]
    return [one for one in found if one]


def _fits(memory: Memory, room: Room) -> bool:
    return memory.total <= room.usable


def _count(
    model: ModelSize,
    job: Job,
    room: Room,
    *,
    rows: int = 1,
    length: int = 0,
    method: Method | None = None,
    shards: int = 0,
    recompute: bool | None = None,
) -> Memory:
    return training_memory(
        model,
        method or job.method,
        room.device,
        rows=rows,
        length=length or max(job.lengths),
        rank=job.rank,
        recompute=job.recompute if recompute is None else recompute,
        optimizer=job.optimizer,
        mixed=room.mixed,
        sparse_head=job.sparse_head and model.plain_head,
        answers=job.answers,
        shards=shards or (room.processes if room.sharded else 1),
    )


def _recomputed(model: ModelSize, job: Job, room: Room) -> str:
    rows = job.micro_batch_size or 1
    helps = job.recompute is False and _fits(
        _count(model, job, room, rows=rows, recompute=True), room
    )
    return "--set student.recompute=true fits, and is slower" if helps else ""


def _smaller_batch(model: ModelSize, job: Job, room: Room) -> str:
    largest = job.micro_batch_size or 1
    sizes = range(largest - 1, 0, -1)
    fitting = (n for n in sizes if _fits(_count(model, job, room, rows=n), room))
    size = next(fitting, 0)
    return f"--set student.micro_batch_size={size} fits" if size else ""


def _shorter(model: ModelSize, job: Job, room: Room) -> str:
    length = max(job.lengths) // 2
    while length >= SHORTEST:
        if _fits(_count(model, job, room, length=length), room):
            return (
                "--set student.micro_batch_size=1 --set student.max_length="
                f"{length} fits, and cuts longer records"
            )
        length //= 2
    return ""


def _other_method(model: ModelSize, job: Job, room: Room) -> str:
    lighter: dict[Method, tuple[Method, ...]] = {"full": ("lora", "qlora"), "lora": ("qlora",)}
    for method in lighter.get(job.method, ()):
        if method == "qlora" and room.device != "cuda":
            continue  # slower than it is worth on a processor, and no kernels on a Mac
        if _fits(_count(model, job, room, method=method), room):
            return f"--set student.method={method} --set student.micro_batch_size=auto fits"
    return ""


def _more_gpus(model: ModelSize, job: Job, room: Room) -> str:
    if room.device != "cuda":
        return ""
    for gpus in range(max(2, room.processes), MOST_GPUS + 1):
        already = room.sharded and gpus == room.processes
        if not already and _fits(_count(model, job, room, shards=gpus), room):
            return f"{gpus} such GPUs fit with --launch accelerate --sharding fsdp"
    return ""


def _smaller_base(model: ModelSize, job: Job, room: Room) -> str:
    """The largest of the well-known smaller bases that fits."""
    known = sorted(STUDENTS, key=lambda shape: shape.parameters, reverse=True)
    for shape in known:
        if shape.parameters < model.parameters and _fits(_count(shape.size, job, room), room):
            return f"a smaller base fits, such as {shape.name}"
    return ""
