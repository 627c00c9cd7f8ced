"""What a trainer is built from, and the arguments that all trainers share.

Each kind of training is a module with a function of the shape `Build`: `sft` (causal language
models), `seq2seq` (encoder-decoders), `preference` (DPO) and `distillation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.steps.training.plan import Plan, accumulation, process_count

# Whole checkpoints that are kept: one is being written while the other is still needed.
KEPT = 2
DECAY = 0.1  # share of the steps in which "wsd" falls where the recipe does not say


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a trainer is made of.

    `rows` are the examples (of the kind that the trainer takes) and `order` the indices into them,
    to be cut into optimizer steps; `arguments` are keyword arguments for the trainer's config.
    """

    model: Any
    tokenizer: Any
    rows: Sequence[Any]
    order: list[int]
    plan: Plan
    arguments: dict[str, Any]
    callbacks: list[Any]


# A transformers `Trainer`, ready to train.
Build = Callable[[Setup], Any]


def shared_arguments(
    plan: Plan, steps: int, checkpoints: Path, *, recompute: bool, dtype: Any
) -> dict[str, Any]:
    """Keyword arguments of `transformers.TrainingArguments` that every kind of training takes."""
    import torch

    micro, accumulated = accumulation(plan, process_count())
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulated,
        "max_steps": steps,
        "learning_rate": plan.learning_rate,
        **_schedule(plan, steps),
        "weight_decay": plan.weight_decay,
        "adam_beta1": plan.adam_beta1,
        "adam_beta2": plan.adam_beta2,
        "adam_epsilon": plan.adam_epsilon,
        "max_grad_norm": plan.max_grad_norm,
        "neftune_noise_alpha": plan.neftune_alpha,
        "seed": plan.seed,
        "data_seed": plan.seed,
        "train_sampling_strategy": "sequential",  # the order is ours
        "bf16": dtype is torch.bfloat16,
        "use_cpu": plan.device == "cpu",
        "gradient_checkpointing": None,  # TRL's default; deprecated in favour of the next
        "activation_checkpointing": recompute,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "save_strategy": "steps",
        "save_steps": plan.save_steps,
        "save_total_limit": KEPT,
        "report_to": "none",
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        # Batches are cut from the order beforehand, so that workers change nothing in it.
        "dataloader_num_workers": plan.throughput.workers,
        "dataloader_pin_memory": plan.device == "cuda",
        "optim": {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit"}[plan.optimizer],
        "torch_compile": plan.throughput.compile,
        "eval_strategy": "no",
        "push_to_hub": False,
    }


def fillers(setup: Setup) -> int:
    """How many rows without labels follow the last example, so that processes have as many each.

    accelerate would take examples from the beginning, and learn them again.
    """
    processes = process_count()
    together = accumulation(setup.plan, processes)[0] * processes
    return -len(setup.order) % together if processes > 1 else 0


def _schedule(plan: Plan, steps: int) -> dict[str, Any]:
    """How the learning rate goes over `steps`, in transformers' words."""
    least = plan.min_learning_rate_ratio
    # Rounded down: the first step of a warmup has rate 0, and a short training none to waste.
    warmup = int(plan.warmup_ratio * steps)
    named: dict[str, Any] = {"lr_scheduler_type": plan.scheduler}
    if plan.scheduler == "wsd":
        falling = max(1, round((plan.decay_ratio or DECAY) * steps))
        kwargs = {
            # The first step of its decay still has the whole rate.
            "num_decay_steps": min(falling + 1, steps - warmup),
            "decay_type": "linear",
            "min_lr_ratio": least,
        }
        named = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": kwargs}
    elif least:
        kwargs = {"min_lr_rate": least}
        named = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": kwargs}
    elif plan.scheduler == "constant":  # its "constant" alone leaves warmup out
        named = {"lr_scheduler_type": "constant_with_warmup"}
    return {"warmup_steps": warmup, **named}


def one_gpu(arguments: Any, plan: Plan) -> Any:
    """`arguments` for one process: it uses one GPU; the trainer would split batches over all."""
    if process_count() == 1 and plan.device == "cuda" and arguments.n_gpu > 1:
        arguments._n_gpu = 1  # DataParallel, which TRL refuses
    return arguments


def keep_precision(model: Any) -> None:
    """Put what is trained back into float32, where TRL cast an adapter on a 4-bit base to bfloat16.

    Late in a training its updates are smaller than bfloat16 can tell apart, and they cost little.
    """
    import torch

    if getattr(model, "is_loaded_in_4bit", False):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32)
