"""Fine-tuning with TRL's SFTTrainer: LoRA or all weights, loss on the answers alone.

Nothing is random that the seed does not decide, and the order of the data is fixed before training
(see `order`), so a run that was killed goes on from its last whole checkpoint with the same losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training.checkpoints import last_complete, mark_complete, write_clock
from selfinstruct.steps.training.format import Example
from selfinstruct.steps.training.order import training_order
from selfinstruct.steps.training.plan import (
    Plan,
    StepLog,
    accumulation,
    is_main_process,
    process_count,
    step_count,
)

# Whole checkpoints that are kept: one is being written while the other is still needed.
KEPT = 2
# Above this many parameters activations are recomputed: slower, but they then fit.
RECOMPUTE_ABOVE = 10**9
OnProgress = Callable[[int, int, float, float], None]


class Fitted(msgspec.Struct, frozen=True):
    """How a model was trained, over all sessions of this training.

    `examples_seen` counts repetitions, `useful_tokens` those with loss, `padded_tokens` the
    positions computed.
    """

    losses: list[StepLog]
    trainable_params: int
    total_params: int
    examples_seen: int
    useful_tokens: int
    padded_tokens: int


def fit(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    plan: Plan,
    checkpoints: Path,
    fingerprint: str,
    clock: Callable[[], float],
    on_progress: OnProgress | None = None,
) -> tuple[Any, Fitted]:
    """Train `model` on `examples`; continues from the last whole checkpoint of `fingerprint`.

    Returns the trained model (with its adapter around it, for LoRA) and how it got there.

    Args:
        model: the base, on its device.
        tokenizer: its tokenizer, with a pad token.
        examples: at least one.
        plan: the settings.
        checkpoints: folder for checkpoints; kept, for the caller to remove.
        fingerprint: of everything that decides the result; other checkpoints are discarded.
        clock: tells the seconds this training has taken so far, earlier sessions included.
        on_progress: called after each step with step, steps in all, loss and tokens per second.

    Raises `UserError` where the loss is no longer a number or the device's memory is too small.
    """
    import torch
    from transformers import PrinterCallback
    from trl import SFTTrainer

    if process_count() == 1:  # with fewer examples than a step holds, a step is one pass
        size = min(plan.batch_size, len(examples))
        plan = msgspec.structs.replace(plan, batch_size=size)
    order = training_order(
        [example.length for example in examples],
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        seed=plan.seed,
        max_steps=plan.max_steps,
    )
    steps = step_count(len(order), plan.batch_size)
    total_params = sum(parameter.numel() for parameter in model.parameters())
    arguments = _arguments(plan, steps, checkpoints, recompute=total_params > RECOMPUTE_ABOVE)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(examples, order),
        processing_class=tokenizer,
        peft_config=_lora(plan) if plan.method == "lora" else None,
        callbacks=[_watcher(plan, steps, checkpoints, fingerprint, clock, on_progress)],
    )
    trainer.remove_callback(PrinterCallback)  # progress is told through `on_progress`
    trainer.create_model_card = lambda **_: None  # cards are written here, of what is known
    resume = last_complete(checkpoints, fingerprint)
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except torch.OutOfMemoryError:
        raise UserError(
            f"the device ran out of memory with {arguments.per_device_train_batch_size} examples "
            "per forward pass; lower student.micro_batch_size or student.max_length and give the "
            "same command again"
        ) from None
    trainable = [p.numel() for p in trainer.model.parameters() if p.requires_grad]
    trainer.model.eval()
    return trainer.model, Fitted(
        losses=_losses(trainer.state.log_history),
        trainable_params=sum(trainable),
        total_params=total_params,
        examples_seen=len(order),
        useful_tokens=sum(len(examples[at].answer) for at in order),
        padded_tokens=_padded([examples[at].length for at in order], plan),
    )


def _dataset(examples: Sequence[Example], order: list[int]) -> Any:
    from datasets import Dataset

    rows = {
        "input_ids": [example.prompt + example.answer for example in examples],
        "labels": [[-100] * len(example.prompt) + example.answer for example in examples],
    }
    return Dataset.from_dict(rows).select(order)


def _lora(plan: Plan) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _arguments(plan: Plan, steps: int, checkpoints: Path, *, recompute: bool) -> Any:
    import torch
    from trl import SFTConfig

    from selfinstruct.steps.training.runtime import compute_dtype

    micro, accumulated = accumulation(plan, process_count())
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        max_steps=steps,
        learning_rate=plan.learning_rate,
        # Its "constant" alone leaves warmup out.
        lr_scheduler_type="constant_with_warmup"
        if plan.scheduler == "constant"
        else plan.scheduler,
        # Rounded down: the first step of a warmup has rate 0, and a short training none to waste.
        warmup_steps=int(plan.warmup_ratio * steps),
        weight_decay=plan.weight_decay,
        seed=plan.seed,
        data_seed=plan.seed,
        train_sampling_strategy="sequential",  # the order is ours
        dataset_kwargs={"skip_prepare_dataset": True},  # so are tokens and labels
        max_length=None,
        packing=False,
        bf16=compute_dtype(plan.device) is torch.bfloat16,
        use_cpu=plan.device == "cpu",
        gradient_checkpointing=None,  # TRL's default; deprecated in favour of the next
        activation_checkpointing=recompute,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        save_strategy="steps",
        save_steps=plan.save_steps,
        save_total_limit=KEPT,
        report_to="none",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        dataloader_pin_memory=plan.device == "cuda",
        eval_strategy="no",
        push_to_hub=False,
    )
    if process_count() == 1 and plan.device == "cuda" and arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the trainer would use DataParallel, which TRL refuses
    return arguments


def _watcher(
    plan: Plan,
    steps: int,
    checkpoints: Path,
    fingerprint: str,
    clock: Callable[[], float],
    on_progress: OnProgress | None,
) -> Any:
    """A callback that times steps, stops on a broken loss and marks whole checkpoints."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]  # the library is untyped
        last = 0.0
        tokens = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.monotonic()

        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, Any], **___: Any) -> None:
            if "loss" not in logs:
                return
            now = time.monotonic()
            loss, seconds = float(logs["loss"]), now - self.last
            tokens, self.tokens = logs["num_tokens"] - self.tokens, logs["num_tokens"]
            if not math.isfinite(loss):
                raise UserError(
                    f"training stopped: the loss became {loss} at step {state.global_step}; "
                    f"lower student.learning_rate (it is {plan.learning_rate:g}) and run again"
                )
            # The log history is part of every checkpoint, so these survive a kill.
            state.log_history[-1].update(step_tokens=int(tokens), seconds=seconds)
            if is_main_process():
                write_clock(checkpoints, fingerprint, clock())
                if on_progress is not None:
                    on_progress(state.global_step, steps, loss, tokens / max(seconds, 1e-9))

        def on_save(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            if is_main_process():
                mark_complete(checkpoints / f"checkpoint-{state.global_step}", fingerprint)

    return Watcher()


def _losses(history: list[dict[str, Any]]) -> list[StepLog]:
    return [
        StepLog(
            step=int(entry["step"]),
            loss=float(entry["loss"]),
            learning_rate=float(entry["learning_rate"]),
            grad_norm=float(entry["grad_norm"]) if "grad_norm" in entry else None,
            tokens=int(entry["step_tokens"]),
            seconds=round(float(entry["seconds"]), 3),
        )
        for entry in history
        if "loss" in entry
    ]


def _padded(lengths: list[int], plan: Plan) -> int:
    """Token positions computed, padding included."""
    micro, _ = accumulation(plan, process_count())
    batches = [lengths[at : at + micro] for at in range(0, len(lengths), micro)]
    return sum(len(batch) * max(batch) for batch in batches)
