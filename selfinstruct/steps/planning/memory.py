"""The memory of one training process, part by part, counted from the model's size.

    weights      4 bytes a parameter; LoRA on CUDA 2 (bfloat16); QLoRA 0.516 for the linear maps
                 (4-bit NF4 with double quantization, Dettmers et al. 2023) and 2 for the rest; an
                 adapter's own 4 on top; on a processor that computes in bfloat16, 2 for its copies
    gradients    4 a trained parameter
    optimizer    8 a trained parameter: Adam's two moments; 2.1 in 8 bits
    activations  what each layer keeps for its gradient, proportional to what goes into and comes
                 out of its linear maps; recomputed, one layer of these and the states in between
    loss         rows of logits in the loss's tiles of the vocabulary
    overhead     Python and its libraries, or the CUDA context and its workspaces

The factors were fitted to peaks measured on a CPU, in `tests/test_machine.py`; those for CUDA are
counted, not measured.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from selfinstruct.steps.planning.model import ModelSize

GIB = 1 << 30
Device = Literal["cpu", "cuda", "mps"]
Method = Literal["lora", "qlora", "full"]
Optimizer = Literal["adamw", "adamw_8bit"]

# Parameters from which on activations are recomputed: slower, but they then fit.
RECOMPUTE_ABOVE = 10**9
TILE = 32_768
# Positions whose logits are held at a time on a processor, and the bytes of each logit.
ROWS, ANSWERS = 256, 12
# Of the memory there is, this much can be had: the rest is the system's, or fragmentation.
USABLE: dict[Device, float] = {"cpu": 0.85, "mps": 0.7, "cuda": 0.92}
OVERHEAD: dict[Device, int] = {"cpu": int(0.55 * GIB), "mps": int(0.55 * GIB), "cuda": GIB}
# Two bytes a parameter, and two scales for each block of 256 (Dettmers et al. 2021).
MOMENTS: dict[Optimizer, float] = {"adamw": 8, "adamw_8bit": 2.1}
# What a processor compiles for products in bfloat16 of many shapes.
KERNELS = int(0.1 * GIB)
# Elements kept for each element that goes into or comes out of a linear map.
KEPT = 1.85


class Memory(msgspec.Struct, frozen=True):
    """Bytes of one process at its peak, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in self.__struct_fields__)


def training_memory(
    model: ModelSize,
    method: Method,
    device: Device,
    *,
    rows: int,
    length: int,
    rank: int = 16,
    recompute: bool | None = None,
    optimizer: Optimizer = "adamw",
    shards: int = 1,
    mixed: bool = False,
    sparse_head: bool = True,
    answers: float = 1.0,
) -> Memory:
    """The peak of one process while it trains.

    Args:
        model: the base.
        method: what is trained.
        device: where.
        rows: examples of a micro-batch.
        length: tokens of the longest row, to which the others are padded.
        rank: of the adapter.
        recompute: whether activations are recomputed; the trainer's rule where not given.
        optimizer: what keeps its moments.
        shards: processes that share weights, gradients and states (FSDP, ZeRO-3).
        mixed: whether a processor computes in bfloat16; a GPU is taken to.
        sparse_head: whether a processor runs the output layer on answers alone.
        answers: the share of tokens that are answers.
    """
    mixed = device == "cuda" or (mixed and method != "qlora")
    trained = model.parameters if method == "full" else model.adapter(rank)
    weights = weight_bytes(model, method, device)
    if method != "full":
        weights += 4 * trained
    if mixed and (method == "full" or device == "cpu"):  # copies of what is multiplied
        weights += 2 * (model.parameters if method == "full" else model.linear)
    tokens, size = rows * length, 2 if mixed else 4
    kept = KEPT * model.ends / model.layers * tokens * size
    if model.stored_scores:
        kept += 2 * rows * model.heads * length * length * size
    if recompute if recompute is not None else model.parameters > RECOMPUTE_ABOVE:
        activations = kept + model.layers * model.hidden * tokens * size
    else:
        activations = model.layers * kept
    if device == "cpu" and sparse_head:
        loss = ANSWERS * min(int(answers * tokens), ROWS) * model.vocabulary
        loss += 2 * model.head if mixed else 0
    else:
        tiles = 2 if device == "cuda" else 8  # the GPU's kernel is fused; measured on TRL's
        loss = min(tokens, 4096) * min(model.vocabulary, TILE) * (2 if device == "cuda" else 4)
        loss *= tiles
    return Memory(
        weights=weights // shards,
        gradients=4 * trained // shards,
        optimizer=int(MOMENTS[optimizer] * trained / shards),
        activations=int(activations),
        loss=loss,
        overhead=OVERHEAD[device] + (KERNELS if mixed and device == "cpu" else 0),
    )


def weight_bytes(model: ModelSize, method: Method, device: Device) -> int:
    """Bytes of the base's weights while it is trained."""
    if method == "full" or (method == "lora" and device != "cuda"):
        return 4 * model.parameters
    if method == "lora":
        return 2 * model.parameters
    return int(0.516 * model.linear + 2 * (model.parameters - model.linear))


def merging_memory(model: ModelSize, method: Method, device: Device) -> int:
    """Peak bytes while the adapter is merged; 0 for a full fine-tune, which needs no merging."""
    if method == "full":
        return 0
    return weight_bytes(model, method, device) + 4 * model.parameters + OVERHEAD[device]
