"""What a model that processes split needs of a trainer to be trained as precisely as a whole one.

By accelerate's defaults FSDP2 sums gradients in bfloat16, rounds what the model gives, its losses
among it, to bfloat16, and keeps the gradients of the whole model between micro-batches, in every
process.
"""

from __future__ import annotations

from typing import Any

from selfinstruct.steps.planning.room import is_sharded


def accumulation_settings() -> dict[str, Any]:
    """Keyword arguments of the trainer's config for gradients of several micro-batches.

    Split models share them out after each micro-batch: otherwise every process would hold those of
    all weights until the step.
    """
    if not is_sharded():
        return {}
    return {"accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}}


def keep_sums(trainer: Any, dtype: Any) -> None:
    """Have FSDP2 compute in `dtype`, and sum gradients and losses in float32."""
    import torch

    if not trainer.is_fsdp_enabled or dtype is torch.float32:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32
    )
