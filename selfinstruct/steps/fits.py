"""Which students can be trained on a machine, and which local teachers can be served there.

Training and merging are counted by `planning.memory`, for this package's own trainer.

serving = weights + cache + buffers: GGUF at Q4_K_M is 4.9 bits a weight, bfloat16 is 2 bytes; the
cache is 2 * layers * kv width * 2 bytes a token of context, counted for 4 calls at once of 4,096
tokens. An upper bound: llama.cpp used half of it for SmolLM2-135M, whose contexts were half empty.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from selfinstruct.core.recipe import StudentConfig
from selfinstruct.steps.machine import Machine
from selfinstruct.steps.planning.memory import (
    GIB,
    USABLE,
    Device,
    Method,
    merging_memory,
    training_memory,
)
from selfinstruct.steps.planning.model import ModelSize

LORA_RANK = 16


class Shape(msgspec.Struct, frozen=True):
    """A decoder's shape, as its config.json says it."""

    name: str
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = True
    qkv_bias: bool = False

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values, of one layer."""
        return self.kv_heads * self.hidden // self.heads

    @property
    def linear(self) -> int:
        """Parameters of the layers' linear maps."""
        h, kv = self.hidden, self.kv_width
        return self.layers * (2 * h * h + 2 * h * kv + 3 * h * self.mlp)

    @property
    def parameters(self) -> int:
        """All parameters."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        bias = self.layers * (self.hidden + 2 * self.kv_width) if self.qkv_bias else 0
        return self.linear + embeddings + bias + self.hidden * (2 * self.layers + 1)

    @property
    def size(self) -> ModelSize:
        """The same, as training is counted from it."""
        return ModelSize(
            parameters=self.parameters,
            linear=self.linear,
            ends=self.layers * (9 * self.hidden + 2 * self.kv_width + 3 * self.mlp),
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            vocabulary=self.vocabulary,
        )


STUDENTS = (
    Shape("SmolLM2-135M", 576, 1536, 30, 9, 3, 49_152),
    Shape("SmolLM2-360M", 960, 2560, 32, 15, 5, 49_152),
    Shape("Qwen2.5-0.5B", 896, 4864, 24, 14, 2, 151_936, qkv_bias=True),
    Shape("Llama-3.2-1B", 2048, 8192, 16, 32, 8, 128_256),
    Shape("Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, 151_936, qkv_bias=True),
    Shape("SmolLM2-1.7B", 2048, 8192, 24, 32, 32, 49_152),
    Shape("Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128_256),
    Shape("Mistral-7B-v0.3", 4096, 14_336, 32, 32, 8, 32_768, tied=False),
    Shape("Llama-3.1-8B", 4096, 14_336, 32, 32, 8, 128_256, tied=False),
)
TEACHERS = (
    STUDENTS[0],
    STUDENTS[5],
    STUDENTS[6],
    STUDENTS[8],
    Shape("Qwen2.5-14B", 5120, 13_824, 48, 40, 8, 152_064, tied=False, qkv_bias=True),
    Shape("Qwen2.5-32B", 5120, 27_648, 64, 40, 8, 152_064, tied=False, qkv_bias=True),
    Shape("Llama-3.3-70B", 8192, 28_672, 80, 64, 8, 128_256, tied=False),
)


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
