"""LoRA adapters: which modules get one, and what is refused.

LoRA is Hu et al. 2021, QLoRA's quantized base Dettmers et al. 2023, rank-stabilized scaling
Kalajdzievski 2023, weight-decomposed updates (DoRA) Liu et al. 2024; PEFT implements them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfinstruct.core.errors import RecipeError
from selfinstruct.steps.training.plan import Plan


def add_adapter(model: Any, plan: Plan) -> Any:
    """`model` with a new LoRA adapter around it, drawn from the plan's seed.

    The base's weights are frozen; those of the adapter are float32 whatever the base is stored in.
    Raises `RecipeError` for modules that are not there or that cannot have an adapter.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    check_modules(model, plan)
    seq2seq = model.config.is_encoder_decoder
    config = LoraConfig(
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout,
        target_modules=plan.lora_targets
        if isinstance(plan.lora_targets, str)
        else list(plan.lora_targets),
        modules_to_save=list(plan.lora_whole) or None,
        use_rslora=plan.lora_rslora,
        use_dora=plan.lora_dora,
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
    )
    set_seed(plan.seed)
    return get_peft_model(model, config)


def two_rates(trainer: Any, plan: Plan, ratio: float) -> Any:
    """The trainer's optimizer, with `ratio` times the learning rate for the second matrices.

    LoRA+ (Hayou et al. 2024); the adapter's second matrices begin at zero and bear more.
    """
    from peft.optimizers import create_loraplus_optimizer

    kind, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args)
    return create_loraplus_optimizer(
        trainer.model,
        kind,
        lr=settings.pop("lr"),
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=plan.weight_decay,
        **settings,
    )


def load_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter in `folder` around it."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder)


def check_modules(model: Any, plan: Plan) -> None:
    """Raises `RecipeError` where `lora_targets` or `lora_whole` name what cannot be trained so."""
    names = dict(model.named_modules())
    linear = sorted({name.rpartition(".")[2] for name in names if _is_linear(names[name])})
    ends = {_leaf(model, part): part for part in ("input", "output")}
    if not isinstance(plan.lora_targets, str):
        for target in plan.lora_targets:
            leaf = target.rpartition(".")[2]
            if leaf in ends:
                raise RecipeError(
                    f"student.lora_targets: {target} is the model's {ends[leaf]} embedding, which "
                    "an adapter would not train rightly; leave it out, or name it in "
                    "student.lora_whole to train it whole"
                )
            if not any(_named(name, target) and _is_linear(names[name]) for name in names):
                raise RecipeError(
                    f"student.lora_targets: the model has no linear module {target}; "
                    f"its linear ones are {', '.join(sorted(set(linear) - set(ends)))}"
                )
    for whole in plan.lora_whole:
        if not any(_named(name, whole) for name in names):
            raise RecipeError(f"student.lora_whole: the model has no module {whole}")
        if whole.rpartition(".")[2] in ends and _tied(model):
            raise RecipeError(
                f"student.lora_whole: the model shares {whole}'s weights between its input and "
                "output embeddings, so it cannot be trained apart; leave it out, or use "
                "student.method=full"
            )


def _named(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _is_linear(module: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D))


def _leaf(model: Any, part: str) -> str:
    """The last part of the name of the model's input or output embedding."""
    found = model.get_input_embeddings() if part == "input" else model.get_output_embeddings()
    names = (name for name, module in model.named_modules() if module is found)
    return next(names, "").rpartition(".")[2]


def _tied(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def trainable(model: Any) -> tuple[int, int]:
    """Parameters that are trained, and those of the whole model, without its adapter.

    A quantized weight counts as the parameters it stands for.
    """
    if not hasattr(model, "get_nb_trainable_parameters"):
        total = sum(parameter.numel() for parameter in model.parameters())
        return sum(p.numel() for p in model.parameters() if p.requires_grad), total
    trained, everything = model.get_nb_trainable_parameters()
    return trained, everything - trained
