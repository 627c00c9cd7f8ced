"""What came of one training: the weights that are kept, and how they were come by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.steps.planning.room import is_sharded
from selfinstruct.steps.training.held_out import Measured, best_of
from selfinstruct.steps.training.history import measurements, step_logs, wall_seconds
from selfinstruct.steps.training.plan import StepLog, accumulation, process_count, wait_for_all
from selfinstruct.steps.training.progress import corrected_seconds
from selfinstruct.steps.training.runtime import peak_memory
from selfinstruct.steps.training.setup import Setup
from selfinstruct.steps.training.watch import Watch

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


def conclude(
    trainer: Any, watch: Watch, setup: Setup, sizes: tuple[int, int], kwh: float | None
) -> Fitted:
    """Take up the best weights of a `trainer` that is done, and say how the training went.

    `sizes` are the parameters that were trained, and those of the whole model.
    """
    plan, history, halving = setup.plan, trainer.state.log_history, watch.halving
    losses, measured, walls = step_logs(history), measurements(history), wall_seconds(history)
    best = _keep_best(trainer, watch.checkpoints, measured)
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
        seconds=sum(walls),
        corrected_seconds=corrected_seconds(walls, watch.positions),
        peak_bytes=peak_memory(plan.device),
        kwh=kwh,
        held_out=measured,
        best_step=best,
        notes=halving.notes,
        saved=_gather(trainer, watch.checkpoints / WHOLE) if is_sharded() else None,
    )


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
