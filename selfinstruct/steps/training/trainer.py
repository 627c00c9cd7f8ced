"""One training: the order of the data, the trainer, its checkpoints, and what came of it.

Nothing is random that the seed does not decide, and the order of the data is fixed before training
(see `order`), so a run that was killed goes on from its last whole checkpoint with the same losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training import seq2seq, sft
from selfinstruct.steps.training.adapters import trainable
from selfinstruct.steps.training.checkpoints import last_complete
from selfinstruct.steps.training.order import training_order
from selfinstruct.steps.training.plan import (
    Plan,
    StepLog,
    accumulation,
    process_count,
    step_count,
)
from selfinstruct.steps.training.setup import Build, Setup, shared_arguments
from selfinstruct.steps.training.watch import OnProgress, Watch, step_logs, watcher

# Supervised fine-tuning, by what the base is.
SUPERVISED: dict[str, Build] = {"causal": sft.build, "encoder-decoder": seq2seq.build}
# Above this many parameters activations are recomputed: slower, but they then fit.
RECOMPUTE_ABOVE = 10**9


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
    rows: Sequence[Any],
    plan: Plan,
    checkpoints: Path,
    fingerprint: str,
    clock: Callable[[], float],
    on_progress: OnProgress | None = None,
    *,
    build: Build = sft.build,
) -> tuple[Any, Fitted]:
    """Train `model` on `rows`; continues from the last whole checkpoint of `fingerprint`.

    Returns the trained model (with its adapter around it, if it has one) and how it got there.

    Args:
        model: what is trained, on its device, with its adapter around it for LoRA.
        tokenizer: its tokenizer, with a pad token.
        rows: at least one, of the kind that `build` takes; each has `length` and `learned`, the
            tokens in all and those with loss.
        plan: the settings.
        checkpoints: folder for checkpoints; kept, for the caller to remove.
        fingerprint: of everything that decides the result; other checkpoints are discarded.
        clock: tells the seconds this training has taken so far, earlier sessions included.
        on_progress: called after each step with step, steps in all, loss and tokens per second.
        build: makes the trainer.

    Raises `UserError` where the loss is no longer a number or the device's memory is too small.
    """
    import torch
    from transformers import PrinterCallback

    if process_count() == 1:  # with fewer examples than a step holds, a step is one pass
        plan = msgspec.structs.replace(plan, batch_size=min(plan.batch_size, len(rows)))
    lengths = [row.length for row in rows]
    order = training_order(
        lengths,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        seed=plan.seed,
        max_steps=plan.max_steps,
    )
    steps = step_count(len(order), plan.batch_size)
    trained, total = trainable(model)
    watch = Watch(
        plan=plan,
        steps=steps,
        tokens=_per_step([lengths[at] for at in order], plan.batch_size),
        checkpoints=checkpoints,
        fingerprint=fingerprint,
        clock=clock,
        on_progress=on_progress,
    )
    trainer = build(
        Setup(
            model=model,
            tokenizer=tokenizer,
            rows=rows,
            order=order,
            plan=plan,
            arguments=shared_arguments(plan, steps, checkpoints, recompute=total > RECOMPUTE_ABOVE),
            callbacks=[watcher(watch)],
        )
    )
    trainer.remove_callback(PrinterCallback)  # progress is told through `on_progress`
    trainer.create_model_card = lambda **_: None  # cards are written here, of what is known
    resume = last_complete(checkpoints, fingerprint)
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except torch.OutOfMemoryError:
        raise UserError(
            f"the device ran out of memory with {trainer.args.per_device_train_batch_size} "
            "examples per forward pass; lower student.micro_batch_size or student.max_length and "
            "give the same command again"
        ) from None
    trainer.model.eval()
    return trainer.model, Fitted(
        losses=step_logs(trainer.state.log_history),
        trainable_params=trained,
        total_params=total,
        examples_seen=len(order),
        useful_tokens=sum(rows[at].learned for at in order),
        padded_tokens=_padded([lengths[at] for at in order], plan),
    )


def _per_step(lengths: list[int], batch_size: int) -> list[int]:
    """Tokens of each optimizer step, without padding."""
    return [sum(lengths[at : at + batch_size]) for at in range(0, len(lengths), batch_size)]


def _padded(lengths: list[int], plan: Plan) -> int:
    """Token positions computed, padding included."""
    micro, _ = accumulation(plan, process_count())
    batches = [lengths[at : at + micro] for at in range(0, len(lengths), micro)]
    return sum(len(batch) * max(batch) for batch in batches)
