"""Which students can be trained on a machine, and which local teachers can be served there.

Training and merging are counted by `planning.memory`, for this package's own trainer.

serving = weights + cache + buffers: GGUF at Q4_K_M is 4.9 bits a weight, bfloat16 is 2 bytes; the
cache is 2 * layers * kv width * 2 bytes a token of context, counted for 4 calls at once of 4,096
tokens. An upper bound: llama.cpp used half of it for SmolLM2-135M, whose contexts were half empty.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.steps.machine import Machine
from selfinstruct.steps.planning.memory import (
    GIB,
    USABLE,
    Device,
    Method,
    merging_memory,
    training_memory,
)
from selfinstruct.steps.planning.shapes import STUDENTS, TEACHERS, Shape

LORA_RANK = 16


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model can be trained ("student") or served ("teacher") here.

    `how` is the training method or the weights' format; `need` and `have` are bytes on `device`.
    `offered` is False for a method that a recipe cannot name in this version.
    """

    role: Literal["student", "teacher"]
    model: str
    parameters: int
    how: str
    device: Device
    need: int
    have: int
    offered: bool = True
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether there is enough memory."""
        return self.need <= self.have


def what_fits(machine: Machine, *, micro_batch_size: int = 4, max_length: int = 512) -> list[Fit]:
    """Every known student by method, then every known teacher by format, on this machine.

    Training is counted for one process on the best device that torch can use, serving over all
    GPUs. The batch is that of the recipe's defaults unless told.
    """
    device: Device = machine.gpu.kind if machine.gpu else "cpu"
    have = int((machine.gpu.memory if machine.gpu else machine.ram) * USABLE[device])
    offered = get_args(StudentConfig.model_fields["method"].annotation)
    fits = []
    for shape in STUDENTS:
        for method in get_args(Method):
            if method != "qlora" or device != "mps":  # bitsandbytes has no kernels for it
                fits.append(
                    _student(
                        shape, method, device, (micro_batch_size, max_length), have,
                        method in offered,
                    )
                )  # fmt: skip
    return fits + _teachers(machine)


def serving_bytes(shape: Shape, bits: float, *, context: int = 4096, parallel: int = 4) -> int:
    """Bytes to serve a model with `bits` a weight and `context` tokens for each parallel call."""
    cache = 2 * shape.layers * shape.kv_width * 2 * context * parallel
    return int(shape.parameters * bits / 8 + cache + 0.6 * GIB)


def _student(
    shape: Shape,
    method: Method,
    device: Device,
    batch: tuple[int, int],
    have: int,
    offered: bool,
) -> Fit:
    rows, length = batch
    # Whether this processor computes in bfloat16 is not asked, as that would import PyTorch.
    training = max(
        training_memory(
            shape.size, method, device, rows=rows, length=length, rank=LORA_RANK, mixed=mixed
        ).total
        for mixed in (False, True)
    )
    merging = merging_memory(shape.size, method, device)
    notes = [] if offered else ["not a method of recipes yet"]
    need = max(training, merging)
    if training <= have < merging:
        need = training
        notes.append(f"with student.merge: false; merging needs {merging / GIB:.1f} GiB")
    return Fit(
        role="student", model=shape.name, parameters=shape.parameters, how=method, device=device,
        need=need, have=have, offered=offered,
        note="; ".join(notes),
    )  # fmt: skip


def _teachers(machine: Machine) -> list[Fit]:
    """Teachers as GGUF for llama.cpp, in memory or on the GPUs; as bfloat16 for vLLM on CUDA."""
    cuda = sum(gpu.memory for gpu in machine.gpus if gpu.kind == "cuda")
    device: Device = "cuda" if cuda else (machine.gpus[0].kind if machine.gpus else "cpu")
    have = int((cuda or machine.ram) * USABLE[device])
    formats = [("Q4_K_M", 4.9), ("bfloat16", 16.0)] if cuda else [("Q4_K_M", 4.9)]
    return [
        Fit(
            role="teacher", model=shape.name, parameters=shape.parameters, how=name, device=device,
            need=serving_bytes(shape, bits), have=have,
        )
        for shape in TEACHERS
        for name, bits in formats
    ]  # fmt: skip
