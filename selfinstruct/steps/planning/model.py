"""The size of a model, from its config alone: its modules are built without their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.model_config import check_writes, first_line, load_config

# Settings under which a model's logits are more than its output layer's product.
_SCALED = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
    "logits_soft_cap",
    "output_logit_soft_cap",
    "logit_softcap",
    "softcap",
)


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """What counting needs to know of a model.

    `linear` are the parameters of all linear maps but the head, `ends` the sum of what goes in and
    comes out of each (a LoRA adapter of rank r has r * `ends` parameters). `layers` counts encoder
    and decoder together. `stored_scores`: attention keeps its matrix of scores for the gradient.
    `plain_head`: logits are the output layer's product and nothing more.
    """

    parameters: int
    linear: int
    ends: int
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    encoder_decoder: bool = False
    stored_scores: bool = False
    plain_head: bool = True

    @property
    def head(self) -> int:
        """Parameters of the output layer, tied or not."""
        return self.hidden * self.vocabulary

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear maps."""
        return rank * self.ends


# What building a model raises where its config has numbers that no model can have.
_REFUSED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)


def measure_model(folder: Path, name: str) -> ModelSize:
    """The size of the model whose config.json is in `folder`; loads no weight.

    Raises `UserError` where transformers does not know the architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    check_writes(folder, name)
    config = load_config(folder, name)
    both = bool(getattr(config, "is_encoder_decoder", False))
    try:
        with torch.device("meta"):
            model = (AutoModelForSeq2SeqLM if both else AutoModelForCausalLM).from_config(config)
    except _REFUSED as error:
        why = first_line(error)
        raise UserError(
            f"student.base: {name}: no model can be made of its config ({why})"
        ) from None
    shapes = _linear_shapes(model)
    embeddings = model.get_input_embeddings()
    layers = int(config.num_hidden_layers)
    if both:
        layers += int(getattr(config, "num_decoder_layers", None) or layers)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(rows * columns for rows, columns in shapes),
        ends=sum(rows + columns for rows, columns in shapes),
        hidden=int(config.hidden_size),
        layers=layers,
        heads=int(config.num_attention_heads),
        vocabulary=int(embeddings.num_embeddings),
        encoder_decoder=both,
        stored_scores=not getattr(model, "_supports_sdpa", False),
        plain_head=not both and has_plain_head(model),
    )


def has_plain_head(model: Any) -> bool:
    """Whether the logits of a causal `model` are its output layer's product and nothing more."""
    import torch

    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    return (
        isinstance(head, torch.nn.Linear)
        and model.base_model is not model
        and not getattr(config, "output_router_logits", False)
        and all(getattr(config, name, None) in (None, 1.0) for name in _SCALED)
    )


def _linear_shapes(model: object) -> list[tuple[int, int]]:
    """The shapes of the linear maps that "all-linear" means in PEFT: all but the head."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()  # type: ignore[attr-defined]
    return [
        (module.weight.shape[0], module.weight.shape[1])
        for module in model.modules()  # type: ignore[attr-defined]
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    ]
