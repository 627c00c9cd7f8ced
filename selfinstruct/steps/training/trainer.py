"""One training: the order of the data, the trainer, its checkpoints, and what came of it.

Nothing is random that the seed does not decide, and the order of the data is fixed before training
(see `order`), so a run that was killed goes on from its last whole checkpoint with the same losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.planning.energy import Meter
from selfinstruct.steps.planning.memory import MOMENTS, RECOMPUTE_ABOVE
from selfinstruct.steps.planning.outlook import Outlook, micro_batches
from selfinstruct.steps.planning.room import is_sharded
from selfinstruct.steps.training import seq2seq, sft
from selfinstruct.steps.training.adapters import trainable
from selfinstruct.steps.training.checkpoints import last_complete, writing
from selfinstruct.steps.training.halving import Halving, is_out_of_memory
from selfinstruct.steps.training.held_out import HeldOut, Measured, best_of
from selfinstruct.steps.training.mixed import mixed_precision
from selfinstruct.steps.training.plan import (
    Plan,
    StepLog,
    accumulation,
    arrange,
    process_count,
    step_count,
    wait_for_all,
)
from selfinstruct.steps.training.preference import Pair
from selfinstruct.steps.training.progress import OnProgress
from selfinstruct.steps.training.rehearsal import largest
from selfinstruct.steps.training.runtime import (
    compute_dtype,
    peak_memory,
    reset_peak,
    training_dtype,
)
from selfinstruct.steps.training.setup import Build, Setup, shared_arguments
from selfinstruct.steps.training.trackers import logs_in, reporting
from selfinstruct.steps.training.watch import Watch, measurements, step_logs, timing, watcher

# Supervised fine-tuning, by what the base is.
SUPERVISED: dict[str, Build] = {"causal": sft.build, "encoder-decoder": seq2seq.build}
WHOLE = "whole"  # among the checkpoints: the weights of a training that split them


class Fitted(msgspec.Struct, frozen=True):
    """How a model was trained, over all sessions of this training.

    `examples_seen` counts repetitions, `useful_tokens` those with loss, `padded_tokens` the
    positions computed. `held_out` has the measurements; the weights are those of the best, which
    was made at `best_step` (None where nothing was measured: they are then the last). `kwh` and
    `seconds` are over all sessions, `peak_bytes` is of this one. `saved` is where the
    weights were put together, where processes had split them.
    """

    losses: list[StepLog]
    trainable_params: int
    total_params: int
    examples_seen: int
    useful_tokens: int
    padded_tokens: int
    micro_batch_size: int
    seconds: float
    corrected_seconds: float | None
    peak_bytes: int | None
    kwh: float | None
    held_out: list[Measured]
    best_step: int | None
    notes: list[str]
    saved: Path | None = None


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """What goes along with a training and does not change it, except that `held_out` may end it.

    `outlook` is the plan, `hour_price` picodollars an hour, `kwh` what earlier sessions drew.
    `report_to` names trackers, `name` is what they call the run. `clock` is the folder where the
    time taken is noted, that of the checkpoints where not given.
    """

    outlook: Outlook | None = None
    hour_price: int = 0
    kwh: float | None = None
    held_out: HeldOut | None = None
    report_to: Sequence[str] = ()
    name: str = ""
    clock: Path | None = None


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
    lengths = [row.length for row in rows]
    plan, order = arrange(lengths, plan)
    lengths = [lengths[at] for at in order]
    sizes, supervised = trainable(model), build in SUPERVISED.values()
    # What follows fine-tuning compares with models held apart, on a processor in float32.
    dtype = (training_dtype if supervised else compute_dtype)(plan.device)
    with Meter(gpus=plan.device == "cuda") as meter:
        watch = Watch(
            plan=plan,
            steps=step_count(len(order), plan.batch_size),
            tokens=_per_step(lengths, plan.batch_size),
            positions=_positions(lengths, plan),
            checkpoints=checkpoints,
            clock_folder=aside.clock or checkpoints,
            fingerprint=fingerprint,
            clock=clock,
            energy=lambda: _added(aside.kwh, meter.kwh),
            on_progress=on_progress,
            outlook=aside.outlook,
            hour_price=aside.hour_price,
            held_out=aside.held_out,
            halving=Halving(),
        )
        setup = Setup(
            model=model,
            tokenizer=tokenizer,
            rows=rows,
            order=order,
            plan=plan,
            arguments=_arguments(watch, aside, dtype, parameters=sizes[1]),
            callbacks=[watcher(watch)],
        )
        with logs_in(checkpoints.parent / "logs"):
            trainer = build(setup)
        _attach(watch.halving, trainer, lengths, setup, supervised=supervised)
        wait_for_all()  # the first process has then removed what is not to be continued
        reset_peak(plan.device)
        with mixed_precision(model, plan.device, dtype):
            _train(trainer, last_complete(checkpoints, fingerprint), plan)
        kwh = watch.energy()
    fitted = _fitted(trainer, watch, setup, sizes, kwh)
    return trainer.model, fitted


def _arguments(watch: Watch, aside: Aside, dtype: Any, *, parameters: int) -> dict[str, Any]:
    """Keyword arguments of the trainer's config, for a model of so many parameters that computes in
    `dtype`."""
    plan = watch.plan
    recompute = parameters > RECOMPUTE_ABOVE if plan.recompute == "auto" else plan.recompute
    arguments = shared_arguments(
        plan, watch.steps, watch.checkpoints, recompute=recompute, dtype=dtype
    )
    arguments |= reporting(aside.report_to, aside.name)
    if aside.held_out is not None:
        arguments["save_total_limit"] += 1  # the best one's, beside the newest
    return arguments


def _attach(
    halving: Halving, trainer: Any, lengths: Sequence[int], setup: Setup, *, supervised: bool
) -> None:
    """Have `halving` mend running out of memory, where a micro-batch can be split.

    Answers that are yet to be written cannot be. `lengths` are those of the rows in their order.
    """
    pairs = isinstance(setup.rows[0], Pair)
    if pairs or supervised:
        micro = accumulation(setup.plan, process_count())[0]
        most = largest(lengths, micro, packed=setup.plan.throughput.packing)
        halving.attach(trainer, most, MOMENTS[setup.plan.optimizer], pairs=pairs)


def _fitted(
    trainer: Any, watch: Watch, setup: Setup, sizes: tuple[int, int], kwh: float | None
) -> Fitted:
    """Take up the best weights, and say how the training went.

    `sizes` are the parameters that were trained, and those of the whole model.
    """
    plan, history, halving = setup.plan, trainer.state.log_history, watch.halving
    losses, measured = step_logs(history), measurements(history)
    best = _keep_best(trainer, watch.checkpoints, measured)
    seconds, corrected = timing(history, watch)
    done = min(len(setup.order), len(losses) * plan.batch_size)
    trainer.model.eval()
    return Fitted(
        losses=losses,
        trainable_params=sizes[0],
        total_params=sizes[1],
        examples_seen=done,
        useful_tokens=sum(setup.rows[at].learned for at in setup.order[:done]),
        padded_tokens=sum(watch.positions[: len(losses)]),
        micro_batch_size=-(-accumulation(plan, process_count())[0] // halving.pieces),
        seconds=seconds,
        corrected_seconds=corrected,
        peak_bytes=peak_memory(plan.device),
        kwh=kwh,
        held_out=measured,
        best_step=best,
        notes=halving.notes,
        saved=_gather(trainer, watch.checkpoints / WHOLE) if is_sharded() else None,
    )


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


def _keep_best(trainer: Any, checkpoints: Path, measured: list[Measured]) -> int | None:
    """Take up the weights with the least held-out loss; the step they are of."""
    best = best_of(measured)
    if best is None:
        return None
    if best.step != trainer.state.global_step:
        # Not what the state says: the folder may have been moved since.
        trainer.state.best_model_checkpoint = str(checkpoints / f"checkpoint-{best.step}")
        trainer._load_best_model()
    return best.step


def _gather(trainer: Any, folder: Path) -> Path:
    """Put the weights that the processes split together in `folder`; all of them take part."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(folder))
    wait_for_all()
    return folder


def _added(before: float | None, now: float | None) -> float | None:
    return None if now is None else (before or 0.0) + now


def _per_step(lengths: list[int], batch_size: int) -> list[int]:
    """Tokens of each optimizer step, without padding."""
    return [sum(lengths[at : at + batch_size]) for at in range(0, len(lengths), batch_size)]


def _positions(lengths: list[int], plan: Plan) -> list[int]:
    """Token positions of each optimizer step, padding included."""
    if plan.throughput.packing:
        return _per_step(lengths, plan.batch_size)
    micro, _ = accumulation(plan, process_count())
    return [
        sum(
            rows * length
            for rows, length in micro_batches(lengths[at : at + plan.batch_size], micro)
        )
        for at in range(0, len(lengths), plan.batch_size)
    ]
