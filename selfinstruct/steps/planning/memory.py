"""The memory of one training process, part by part, counted from the model's size.

    weights      4 bytes a parameter; LoRA on CUDA 2 (bfloat16); QLoRA 0.516 for the linear maps
                 (4-bit NF4 with double quantization, Dettmers et al. 2023) and 2 for the rest; an
                 adapter's own 4 on top; 2 for the copies in bfloat16 of what autocast multiplies;
                 where processes split the model, two layers of it whole, and the embeddings
    gradients    4 a trained parameter; twice that where processes with a whole model each put them
                 together (DDP's buckets)
    optimizer    8 a trained parameter: Adam's two moments; 2.1 in 8 bits, but for embeddings
    activations  what each layer keeps for its gradient, proportional to what goes into and comes
                 out of its linear maps; recomputed, one layer of these and the states in between
    loss         rows of logits in the loss's tiles of the vocabulary; the gradient of the head
    overhead     Python and its libraries, or the CUDA context and its workspaces

The factors were fitted to peaks measured on a CPU, in `tests/test_machine.py`; those for CUDA to
steps simulated by `benchmarks/gpu/simulated.py`, without a GPU.
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
# What a processor compiles for products in bfloat16, and what it holds after many lengths.
KERNELS, LENGTHS = int(0.1 * GIB), int(0.2 * GIB)
# Elements kept for each element that goes into or comes out of a linear map. On CUDA the states
# between layers are in float32 where all weights are trained, and PEFT's layers for four bits keep
# a copy each of what goes in; so they do where the model is split, with states in bfloat16.
KEPT = 1.85
KEPT_CUDA: dict[Method, float] = {"lora": 1.25, "qlora": 1.35, "full": 1.5}
KEPT_SPLIT = 1.35
# TRL's fused loss on CUDA takes so many positions at a time.
LOSS_ROWS = 4096


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
    together: bool = False,
    mixed: bool = False,
    bf16: bool = True,
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
        together: whether processes with a whole model each train together (DDP).
        mixed: whether a processor computes in bfloat16.
        bf16: whether a GPU does, as all but old ones do.
        sparse_head: whether a processor runs the output layer on answers alone.
        answers: the share of tokens that are answers.
    """
    mixed = bf16 if device == "cuda" else mixed and method != "qlora"
    size = 2 if mixed else 4
    trained = model.parameters if method == "full" else model.adapter(rank)
    if device == "cuda":
        loss = _cuda_loss(model, method, rows * length, size)
    else:
        loss = _loss(model, rows * length, answers if device == "cpu" and sparse_head else None)
        loss += 2 * model.head if mixed and sparse_head else 0
    return Memory(
        weights=_weights(model, method, device, trained, shards=shards, mixed=mixed),
        gradients=4 * trained * (2 if together else 1) // shards,
        optimizer=int(_moments(model, method, optimizer, trained) / shards),
        activations=_activations(
            model, method, device, rows, length, recompute, split=shards > 1, size=size
        ),
        loss=loss,
        overhead=OVERHEAD[device] + (KERNELS + LENGTHS if mixed and device == "cpu" else 0),
    )


def _moments(model: ModelSize, method: Method, optimizer: Optimizer, trained: int) -> float:
    """Bytes of AdamW's moments; the trainer keeps an embedding's in 32 bits."""
    if optimizer == "adamw_8bit" and method == "full":
        embedding = model.hidden * model.vocabulary
        return MOMENTS[optimizer] * (trained - embedding) + MOMENTS["adamw"] * embedding
    return MOMENTS[optimizer] * trained


def _weights(
    model: ModelSize, method: Method, device: Device, trained: int, *, shards: int, mixed: bool
) -> int:
    weights = weight_bytes(model, method, device, bf16=mixed or device != "cuda")
    if method != "full":
        weights += 4 * trained
    if shards > 1 and method == "qlora":
        return weights  # four bits are not split
    if shards > 1:
        layer = model.linear // model.layers
        # What is gathered: two layers, one's gradient (also in float32), and all besides layers.
        return weights // shards + 2 * (2 * layer + model.parameters - model.linear) + 6 * layer
    if mixed and (method == "full" or device == "cpu"):  # copies of what is multiplied
        weights += 2 * (model.parameters if method == "full" else model.linear)
    return weights


def _activations(
    model: ModelSize,
    method: Method,
    device: Device,
    rows: int,
    length: int,
    recompute: bool | None,
    *,
    split: bool,
    size: int,
) -> int:
    """What is kept for the gradients, of elements of `size` bytes."""
    tokens, share = rows * length, KEPT
    if device == "cuda":
        share = KEPT_SPLIT if split else KEPT_CUDA[method]
    kept = share * model.ends / model.layers * tokens * size
    if model.stored_scores:
        kept += 2 * rows * model.heads * length * length * size
    if recompute if recompute is not None else model.parameters > RECOMPUTE_ABOVE:
        between = 4 if device == "cuda" and method == "full" and not split else size
        return int(kept + model.layers * model.hidden * tokens * between)
    return int(model.layers * kept)


def _loss(model: ModelSize, tokens: int, answers: float | None) -> int:
    """Of a processor's loss; `answers` is the share of tokens that it is computed on, None for
    TRL's, which takes all of them in tiles, several times."""
    if answers is not None:
        return ANSWERS * min(int(answers * tokens), ROWS) * model.vocabulary
    return 8 * 4 * min(tokens, LOSS_ROWS) * min(model.vocabulary, TILE)


def _cuda_loss(model: ModelSize, method: Method, tokens: int, size: int) -> int:
    """Of TRL's fused loss: a tile of logits, and the gradients of what goes in and of the head."""
    loss = size * min(tokens, LOSS_ROWS) * TILE + 4 * tokens * model.hidden
    if method == "full":
        loss += 4 * model.head + size * min(model.vocabulary, TILE) * model.hidden
    return loss


def weight_bytes(model: ModelSize, method: Method, device: Device, *, bf16: bool = True) -> int:
    """Bytes of the base's weights while it is trained; `bf16`: on a GPU that has it."""
    if method == "full" or (method == "lora" and (device != "cuda" or not bf16)):
        return 4 * model.parameters
    if method == "lora":
        return 2 * model.parameters
    return int(0.516 * model.linear + (2 if bf16 else 4) * (model.parameters - model.linear))


def merging_memory(model: ModelSize, method: Method, device: Device, *, bf16: bool = True) -> int:
    """Peak bytes while the adapter is merged; 0 for a full fine-tune, which needs no merging."""
    if method == "full":
        return 0
    trained = weight_bytes(model, method, device, bf16=bf16)
    return trained + 4 * model.parameters + OVERHEAD[device]
