"""What would fit where a training does not: each suggestion was counted, none is a guess."""

from __future__ import annotations

from msgspec.structs import replace

from selfinstruct.steps.planning.job import Job, job_memory
from selfinstruct.steps.planning.memory import Method
from selfinstruct.steps.planning.model import ModelSize
from selfinstruct.steps.planning.room import Room
from selfinstruct.steps.planning.shapes import STUDENTS

SHORTEST = 128
MOST_GPUS = 64
LIGHTER: dict[Method, tuple[Method, ...]] = {"full": ("lora", "qlora"), "lora": ("qlora",)}


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


def _fits(model: ModelSize, job: Job, room: Room, rows: int = 1, length: int | None = None) -> bool:
    """Whether `rows` examples at once fit, as long as the job's longest where not given."""
    return job_memory(model, job, room, rows, length or job.longest).total <= room.usable


def _recomputed(model: ModelSize, job: Job, room: Room) -> str:
    rows = job.micro_batch_size or 1
    helps = job.recompute is False and _fits(model, replace(job, recompute=True), room, rows)
    return "--set student.recompute=true fits, and is slower" if helps else ""


def _smaller_batch(model: ModelSize, job: Job, room: Room) -> str:
    sizes = range((job.micro_batch_size or 1) - 1, 0, -1)
    size = next((rows for rows in sizes if _fits(model, job, room, rows)), 0)
    return f"--set student.micro_batch_size={size} fits" if size else ""


def _shorter(model: ModelSize, job: Job, room: Room) -> str:
    length = job.longest // 2
    while length >= SHORTEST:
        if _fits(model, job, room, length=length):
            return (
                "--set student.micro_batch_size=1 --set student.max_length="
                f"{length} fits, and cuts longer records"
            )
        length //= 2
    return ""


def _other_method(model: ModelSize, job: Job, room: Room) -> str:
    for method in LIGHTER.get(job.method, ()):
        if method == "qlora" and room.device != "cuda":
            continue  # slower than it is worth on a processor, and no kernels on a Mac
        if _fits(model, replace(job, method=method), room):
            return f"--set student.method={method} --set student.micro_batch_size=auto fits"
    return ""


def _more_gpus(model: ModelSize, job: Job, room: Room) -> str:
    if room.device != "cuda":
        return ""
    for gpus in range(max(2, room.shards + 1, room.processes), MOST_GPUS + 1):
        if _fits(model, job, replace(room, processes=gpus, sharded=True)):
            return f"{gpus} such GPUs fit with --launch accelerate --sharding fsdp"
    return ""


def _smaller_base(model: ModelSize, job: Job, room: Room) -> str:
    """The largest of the well-known smaller bases that fits."""
    for shape in sorted(STUDENTS, key=lambda shape: shape.parameters, reverse=True):
        size = replace(shape.size, stored_scores=model.stored_scores)  # the same attention
        if shape.parameters < model.parameters and _fits(size, job, room):
            return f"a smaller base fits, such as {shape.name}"
    return ""
