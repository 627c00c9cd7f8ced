"""Mixed precision: products in bfloat16, updates in float32.

A processor with instructions for bfloat16 multiplies matrices in it about twice as fast. The base's
weights and all that is trained stay in float32 there, and measurements outside of training are made
in it. On a GPU accelerate's autocast does as much, and a frozen base is in bfloat16 itself.

LoRA's layers need care on both. PEFT adds the adapter's share to the base layer's output after that
was rounded to 8 bits of fraction; early in a training the share is smaller than half of the last of
these bits, and vanishes. Here both are summed in the product's own accumulator, in float32, and
rounded once: the losses are those of a training in float32. Nor is what goes into a layer cast to
float32 and back, which takes a copy for each layer.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator
from typing import Any

from selfinstruct.steps.planning.room import is_sharded


@contextlib.contextmanager
def mixed_precision(model: Any, device: str, dtype: Any, *, compiled: bool) -> Iterator[None]:
    """Prepare `model` for a trainer's autocast to `dtype`; afterwards it is as it was.

    On a processor it computes in float32 in evaluation mode all the while, and the trainer leaves a
    model behind that computes in bfloat16 ever after; that is undone too. A model that is to be
    compiled on a GPU, or that processes share, keeps PEFT's layers.
    """
    import torch

    if device not in ("cpu", "cuda") or dtype is torch.float32 or is_sharded():
        yield
        return
    with contextlib.ExitStack() as stack:
        if device == "cpu":
            stack.enter_context(_exact_evaluation(model))
        if device == "cpu" or not compiled:
            stack.enter_context(_rounded_once(model, device, dtype))
        yield


@contextlib.contextmanager
def _exact_evaluation(model: Any) -> Iterator[None]:
    """Have a processor's `model` compute in float32 in evaluation mode."""
    import torch

    own, plain = vars(model).get("forward"), model.forward

    @functools.wraps(getattr(plain, "__func__", plain))
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.nullcontext() if self.training else torch.autocast("cpu", enabled=False):
            return plain(*args, **kwargs)

    model.forward = types.MethodType(forward, model)
    try:
        yield
    finally:
        vars(model).pop("_original_forward", None)  # accelerate's
        if own is None:
            vars(model).pop("forward", None)
        else:
            model.forward = own


@contextlib.contextmanager
def _rounded_once(model: Any, device: str, dtype: Any) -> Iterator[None]:
    """Have LoRA's layers in `model` sum base and adapter in float32."""
    layers = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = types.MethodType(_forward_of(layer, device, dtype), layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(module: Any) -> bool:
    """Whether `module` is LoRA of a linear layer, without variants."""
    from peft.tuners.lora.layer import Linear
    from torch import nn

    return (
        type(module) is Linear
        and type(module.base_layer) is nn.Linear
        and not module.base_layer.weight.requires_grad
        and not module.lora_variant
        and not any(module.lora_bias.values())
        and all(isinstance(one, nn.Identity) for one in module.lora_dropout.values())
    )


def _forward_of(layer: Any, device: str, dtype: Any) -> Any:
    """PEFT's forward for `layer`, and under autocast in training the one of this module."""
    import torch

    plain, base, product = layer.forward, layer.base_layer, _function()
    weight = base.weight.detach().to(dtype)  # cast once, if at all; it is frozen

    def forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        names = self.active_adapters
        ours = self.training and torch.is_autocast_enabled(device) and not (args or kwargs)
        if not ours or self.disable_adapters or self.merged or len(names) != 1:
            return plain(x, *args, **kwargs)
        down, up = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
        with torch.autocast(device, enabled=False):
            out = product.apply(x, weight, down, up, self.scaling[names[0]])
            return out if base.bias is None else out + base.bias.to(out.dtype)

    return forward


@functools.cache
def _function() -> Any:
    """x W^T + s (x A^T) B^T, the sum rounded once; its gradients by x, A and B."""
    import torch

    class AdaptedProduct(torch.autograd.Function):  # type: ignore[misc]  # the library is untyped
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, down: Any, up: Any, scale: float) -> Any:
            rows = x.reshape(-1, x.shape[-1]).to(weight.dtype)
            down, up = down.to(weight.dtype), up.to(weight.dtype)
            inner = (rows @ down.T).mul_(scale)
            out = (inner @ up.T).addmm_(rows, weight.T)
            ctx.save_for_backward(rows, inner, weight, down, up)
            ctx.scale, ctx.dtype = scale, x.dtype
            return out.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            rows, inner, weight, down, up = ctx.saved_tensors
            slopes = outer[0].reshape(-1, outer[0].shape[-1]).to(weight.dtype)
            across = (slopes @ up).mul_(ctx.scale)
            back = None
            if ctx.needs_input_grad[0]:
                back = (across @ down).addmm_(slopes, weight)
                back = back.view(*outer[0].shape[:-1], -1).to(ctx.dtype)
            return back, None, (across.T @ rows).float(), (slopes.T @ inner).float(), None

    return AdaptedProduct
