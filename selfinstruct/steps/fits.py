"""Which students can be trained on a machine, and which local teachers can be served there.

Bytes are counted from the shapes of the models, for this package's own trainer:

training = weights + states + activations + head + overhead
    weights      4 a parameter; LoRA on CUDA 2 (bfloat16); QLoRA 0.516 for the linear layers (4-bit
                 NF4 with double quantization, Dettmers et al. 2023) and 2 for the rest
    states       12 a trained parameter (gradient 4, Adam's two moments 8), an adapter's own 4 on
                 top; a full fine-tune on CUDA 2 more for the weights that autocast keeps
    activations  tokens * layers * 1.6 * (10 h + 4 i) * size: the tensors that a layer of width h
                 and MLP width i keeps for its gradient (counted as in Korthikanti et al. 2022, for
                 grouped heads and a gated MLP without a stored attention matrix), 1.6 measured;
                 above 10^9 parameters one layer of these and tokens * layers * h * size
    head         the trainer computes the vocabulary in tiles of 32,768: 8 such rows a token
                 (measured on a CPU), 2 with the GPU's fused kernel
    overhead     Python and its libraries, or the CUDA context and its workspaces
    size         4, on CUDA 2 (bfloat16)
merging (LoRA, QLoRA) = the trained model, still held, and 4 a parameter for its float32 copy

Peaks of twelve trainings on a CPU (67M to 1.7B parameters, LoRA and full, 128 to 2,048 tokens) lay
between 17% below and 2% above these figures. Those for CUDA were counted, not measured.

serving = weights + cache + buffers: GGUF at Q4_K_M is 4.9 bits a weight, bfloat16 is 2 bytes; the
cache is 2 * layers * kv width * 2 bytes a token of context, counted for 4 calls at once of 4,096
tokens. An upper bound: llama.cpp used half of it for SmolLM2-135M, whose contexts were half empty.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from selfinstruct.core.recipe import StudentConfig
from selfinstruct.steps.machine import Machine

GIB = 1 << 30
Device = Literal["cpu", "cuda", "mps"]
Method = Literal["lora", "qlora", "full"]

RECOMPUTE_ABOVE = 10**9  # the trainer's own limit
TILE = 32_768
LORA_RANK = 16
# Of the memory there is, this much can be had: the rest is the system's, or fragmentation.
USABLE = {"cpu": 0.85, "mps": 0.7, "cuda": 0.92}
OVERHEAD = {"cpu": int(0.8 * GIB), "mps": int(0.8 * GIB), "cuda": GIB}


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

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA on all linear maps."""
        return rank * self.layers * (9 * self.hidden + 2 * self.kv_width + 3 * self.mlp)


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
    tokens = micro_batch_size * max_length
    offered = get_args(StudentConfig.model_fields["method"].annotation)
    fits = []
    for shape in STUDENTS:
        for method in get_args(Method):
            if method != "qlora" or device != "mps":  # bitsandbytes has no kernels for it
                fits.append(_student(shape, method, device, tokens, have, method in offered))
    return fits + _teachers(machine)


def training_bytes(shape: Shape, method: Method, device: Device, tokens: int) -> int:
    """Peak bytes of one training process; `tokens` are those of one micro-batch, padding too."""
    size = 2 if device == "cuda" else 4
    total = shape.parameters
    trained = total if method == "full" else shape.adapter(LORA_RANK)
    states = trained * (12 if method == "full" else 16)
    if method == "full" and device == "cuda":
        states += 2 * total
    layer = 1.6 * (10 * shape.hidden + 4 * shape.mlp) * size
    if total > RECOMPUTE_ABOVE:
        kept = layer + shape.layers * shape.hidden * size
    else:
        kept = layer * shape.layers
    rows = 2 if device == "cuda" else 8
    head = min(tokens, 4096) * min(shape.vocabulary, TILE) * size * rows
    weights = weight_bytes(shape, method, device)
    return int(weights + states + tokens * kept + head + OVERHEAD[device])


def weight_bytes(shape: Shape, method: Method, device: Device) -> int:
    """Bytes of the base's weights while it is trained."""
    if method == "full" or (method == "lora" and device != "cuda"):
        return 4 * shape.parameters
    if method == "lora":
        return 2 * shape.parameters
    return int(0.516 * shape.linear + 2 * (shape.parameters - shape.linear))


def merging_bytes(shape: Shape, method: Method, device: Device) -> int:
    """Peak bytes while the adapter is merged; 0 for a full fine-tune, which needs no merging."""
    if method == "full":
        return 0
    return weight_bytes(shape, method, device) + 4 * shape.parameters + OVERHEAD[device]


def serving_bytes(shape: Shape, bits: float, *, context: int = 4096, parallel: int = 4) -> int:
    """Bytes to serve a model with `bits` a weight and `context` tokens for each parallel call."""
    cache = 2 * shape.layers * shape.kv_width * 2 * context * parallel
    return int(shape.parameters * bits / 8 + cache + 0.6 * GIB)


def _student(
    shape: Shape, method: Method, device: Device, tokens: int, have: int, offered: bool
) -> Fit:
    training = training_bytes(shape, method, device, tokens)
    merging = merging_bytes(shape, method, device)
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
