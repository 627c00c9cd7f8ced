"""How long a training takes: its floating-point operations, over what the machine manages.

Operations are counted as usual, 2 a parameter and token forward, the same backward for the gradient
that passes through, and again for the gradient of weights that are trained (Kaplan et al. 2020),
with attention's scores beside. A GPU's rate is a share of its peak that is assumed; a processor's
is timed with a few products of matrices of the model's own size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from selfinstruct.steps.planning.accelerators import known_gpu
from selfinstruct.steps.planning.memory import Method
from selfinstruct.steps.planning.model import ModelSize

# The share of a GPU's peak that a large model reaches, assumed; a narrow one cannot fill the GPU.
GPU_SHARE = 0.4
FULL_WIDTH = 4096
# What a processor takes over products of matrices alone, in float32 and in bfloat16, whose products
# are faster and the rest as slow; and on each layer's calls for each micro-batch, in seconds. All
# were measured with this trainer. TRL's loss computes the head's rows once more for their gradient
# and passes over the logits several times: as much again.
CPU_BESIDE, CPU_BESIDE_MIXED = 1.3, 3.7
CPU_HEAD = 2.0
CPU_LAYER_SECONDS = 0.0006
CALIBRATION_SECONDS = 0.4


class Speed(msgspec.Struct, frozen=True):
    """Operations a second of one process, and where the figure is from.

    `mixed`: of a processor's products in bfloat16.
    """

    flops: float
    source: Literal["measured on this processor", "assumed share of the GPU's peak"]
    peak: float | None = None
    mixed: bool = False


def step_flops(model: ModelSize, method: Method, rows: int, length: int) -> float:
    """Operations of a forward and backward pass over one micro-batch, without recomputation."""
    tokens = rows * length
    passes = 3 if method == "full" else 2
    matrices = 2 * (model.linear + model.head) * tokens
    scores = 2 * 2 * model.layers * model.hidden * length * tokens / 2  # half is masked
    adapter = 0.0 if method == "full" else 2 * 3 * model.adapter(16) * tokens
    return passes * matrices + 3 * scores + adapter


def forward_share(method: Method) -> float:
    """What recomputing the layers adds to `step_flops`, as a share of it."""
    return 1 / 3 if method == "full" else 1 / 2


def gpu_speed(name: str, model: ModelSize) -> Speed | None:
    """What the GPU called `name` is assumed to reach on `model`; None where it is not known."""
    found = known_gpu(name)
    if found is None:
        return None
    width = min(1.0, model.hidden / FULL_WIDTH)
    share = GPU_SHARE * max(width**0.5, 0.2)
    return Speed(found.flops * share, "assumed share of the GPU's peak", found.flops)


def processor_speed(
    model: ModelSize, tokens: int, seconds: float = CALIBRATION_SECONDS, *, mixed: bool = False
) -> Speed:
    """What this processor reaches on products of the size of `model`'s, timed for `seconds`.

    They are in bfloat16 where it trains in `mixed` precision, else in float32.

    The linear maps of a layer and a tile of the head are timed apart and weighed by their share.
    """
    mean = max(1, model.linear // model.layers // (4 * model.hidden))
    layer = _rate(tokens, model.hidden, mean, seconds / 2, mixed)
    head = _rate(tokens, model.hidden, min(model.vocabulary, 8192), seconds / 2, mixed)
    operations = model.linear + model.head
    took = model.linear / layer + model.head / head
    return Speed(operations / took, "measured on this processor", mixed=mixed)


def _rate(rows: int, inner: int, columns: int, seconds: float, mixed: bool) -> float:
    """Operations a second of products of these sizes, the fastest of those timed."""
    import torch

    dtype = torch.bfloat16 if mixed else torch.float32
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    best, end = float("inf"), time.monotonic() + seconds
    torch.mm(left, right)
    while True:
        began = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - began)
        if time.monotonic() > end:
            return 2 * rows * inner * columns / max(best, 1e-9)


def training_seconds(
    model: ModelSize,
    method: Method,
    batches: Sequence[tuple[int, int]],
    speed: Speed,
    *,
    recompute: bool,
    answers: float | None = 1.0,
) -> float:
    """Seconds for one process to train on `batches`, micro-batches as (rows, length).

    `answers` is the share of tokens that a processor runs the output layer on; None for TRL's loss,
    which runs on all of them.
    """
    operations = sum(step_flops(model, method, rows, length) for rows, length in batches)
    if recompute:
        operations *= 1 + forward_share(method)
    if speed.peak is not None:
        return operations / speed.flops
    tokens = sum(rows * length for rows, length in batches)
    over = CPU_HEAD if answers is None else answers
    operations += (over - 1) * (3 if method == "full" else 2) * 2 * model.head * tokens
    calls = len(batches) * model.layers * CPU_LAYER_SECONDS * (1.5 if recompute else 1)
    return operations / speed.flops * (CPU_BESIDE_MIXED if speed.mixed else CPU_BESIDE) + calls
