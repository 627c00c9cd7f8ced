"""One training: the order of the data, the trainer, and its checkpoints.

Nothing is random that the seed does not decide, and the order of the data is fixed before training
(see `order`), so a run that was killed goes on from its last whole checkpoint with the same losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import UserError
from selfinstruct.steps.planning.batches import MicroBatch, largest, micro_batches
from selfinstruct.steps.planning.energy import Meter
from selfinstruct.steps.planning.memory import MOMENTS, RECOMPUTE_ABOVE
from selfinstruct.steps.training import seq2seq, sft
from selfinstruct.steps.training.adapters import trainable, two_rates
from selfinstruct.steps.training.checkpoints import last_complete, writing
from selfinstruct.steps.training.fitted import Fitted, conclude
from selfinstruct.steps.training.halving import Halving, is_out_of_memory
from selfinstruct.steps.training.mixed import mixed_precision
from selfinstruct.steps.training.plan import (
    Plan,
    accumulation,
    arrange,
    process_count,
    wait_for_all,
)
from selfinstruct.steps.training.preference import Pair
from selfinstruct.steps.training.progress import OnProgress
from selfinstruct.steps.training.runtime import (
    compute_dtype,
    exact_products,
    reset_peak,
    training_dtype,
)
from selfinstruct.steps.training.setup import Build, Setup, shared_arguments
from selfinstruct.steps.training.sharding import accumulation_settings, keep_sums
from selfinstruct.steps.training.trackers import logs_in, reporting
from selfinstruct.steps.training.watch import Aside, Watch, watcher

# Supervised fine-tuning, by what the base is.
SUPERVISED: dict[str, Build] = {"causal": sft.build, "encoder-decoder": seq2seq.build}


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
    aside: Aside = Aside(),  # noqa: B008 (it is frozen)
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
        on_progress: called after each step.
        build: makes the trainer.
        aside: what goes along with the training.

    Raises `UserError` where the loss is no longer a number or the device's memory is too small.
    """
    plan, order = arrange([row.length for row in rows], plan)
    batches = _batches([rows[at].length for at in order], plan)
    sizes = trainable(model)
    # What follows fine-tuning compares with models held apart, on a processor in float32.
    dtype = (training_dtype if build in SUPERVISED.values() else compute_dtype)(plan.device)
    with Meter(gpus=plan.device == "cuda") as meter, exact_products():
        watch = Watch(
            plan=plan,
            tokens=_by_step([batch.tokens for batch in batches], plan),
            positions=_by_step([batch.positions for batch in batches], plan),
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            clock=clock,
            energy=lambda: _added(aside.kwh, meter.kwh),
            on_progress=on_progress,
            aside=aside,
            halving=Halving(),
        )
        setup = Setup(
            model=model,
            tokenizer=tokenizer,
            rows=rows,
            order=order,
            plan=plan,
            arguments=_arguments(watch, dtype, parameters=sizes[1]),
            callbacks=[watcher(watch)],
        )
        trainer = _made(build, setup, watch, batches)
        keep_sums(trainer, dtype)
        wait_for_all()  # the first process has then removed what is not to be continued
        reset_peak(plan.device)
        with mixed_precision(model, plan.device, dtype, compiled=plan.throughput.compile):
            _train(trainer, last_complete(checkpoints, fingerprint), plan)
        kwh = watch.energy()
    return trainer.model, conclude(trainer, watch, setup, sizes, kwh)


def _batches(lengths: Sequence[int], plan: Plan) -> list[MicroBatch]:
    micro, _ = accumulation(plan, process_count())
    return micro_batches(lengths, micro, packed=plan.throughput.packing)


def _by_step(counts: Sequence[int], plan: Plan) -> list[int]:
    """What each optimizer step has, given what each micro-batch has."""
    each = plan.batch_size // accumulation(plan, process_count())[0]
    return [sum(counts[at : at + each]) for at in range(0, len(counts), each)]


def _added(before: float | None, now: float | None) -> float | None:
    return None if now is None else (before or 0.0) + now


def _made(build: Build, setup: Setup, watch: Watch, batches: Sequence[MicroBatch]) -> Any:
    """The trainer, with what mends running out of memory where a micro-batch can be split.

    Answers that are yet to be written cannot be.
    """
    with logs_in(watch.checkpoints.parent / "logs"):
        trainer = build(setup)
    if setup.plan.lora_plus_ratio is not None:
        trainer.optimizer = two_rates(trainer, setup.plan, setup.plan.lora_plus_ratio)
    pairs = isinstance(setup.rows[0], Pair)
    if pairs or build in SUPERVISED.values():
        moments = MOMENTS[setup.plan.optimizer]
        watch.halving.attach(trainer, largest(batches).places, moments, pairs=pairs)
    return trainer


def _arguments(watch: Watch, dtype: Any, *, parameters: int) -> dict[str, Any]:
    """Keyword arguments of the trainer's config, for a model of so many parameters that computes in
    `dtype`."""
    plan, aside = watch.plan, watch.aside
    recompute = parameters > RECOMPUTE_ABOVE if plan.recompute == "auto" else plan.recompute
    arguments = shared_arguments(
        plan, watch.steps, watch.checkpoints, recompute=recompute, dtype=dtype
    )
    arguments |= reporting(aside.report_to, aside.name) | accumulation_settings()
    if aside.held_out is not None:
        arguments["save_total_limit"] += 1  # the best one's, beside the newest
    return arguments


def _train(trainer: Any, resume: Path | None, plan: Plan) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # progress is told through `on_progress`
    trainer.create_model_card = lambda **_: None  # cards are written here, of what is known
    try:
        with writing(Path(trainer.args.output_dir)), _shapes(plan):
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = accumulation(plan, process_count())[0]
        more = "" if trainer.args.activation_checkpointing else ", set student.recompute=true,"
        raise UserError(
            f"the device ran out of memory with {size} examples per forward pass; lower "
            f"student.micro_batch_size or student.max_length{more} and give the same command again"
        ) from None


def _shapes(plan: Plan) -> Any:
    """Have torch.compile take lengths as variables from the first batch on.

    It would otherwise make code for the first batch's own length, and a training that goes on from
    a checkpoint begins with another one.
    """
    if not plan.throughput.compile:
        return contextlib.nullcontext()
    import torch._dynamo

    return torch._dynamo.config.patch(assume_static_by_default=False)
