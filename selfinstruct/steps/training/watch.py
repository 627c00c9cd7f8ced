"""The callback of a training: it times steps, measures, stops what has gone wrong, marks files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.planning.outlook import Outlook
from selfinstruct.steps.training.checkpoints import mark_complete, write_clock
from selfinstruct.steps.training.halving import Halving
from selfinstruct.steps.training.held_out import HeldOut, Measured, best_of, is_over
from selfinstruct.steps.training.history import measurements, step_entries
from selfinstruct.steps.training.plan import (
    Plan,
    is_main_process,
    process_count,
    wait_for_all,
)
from selfinstruct.steps.training.progress import (
    LossGuard,
    OnProgress,
    TrainProgress,
)
from selfinstruct.steps.training.runtime import finish_work

# Steps whose pace foretells the rest.
PACE_STEPS = 50


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


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the callback needs to know of a training.

    `tokens` are those of each step, without padding, `positions` with it. `clock` tells the
    seconds this training has taken so far, `energy` the kWh where they can be read.
    """

    plan: Plan
    tokens: list[int]
    positions: list[int]
    checkpoints: Path
    fingerprint: str
    clock: Callable[[], float]
    energy: Callable[[], float | None] = lambda: None
    on_progress: OnProgress | None = None
    aside: Aside
    halving: Halving

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return len(self.positions)


def watcher(watch: Watch) -> Any:
    """A transformers `TrainerCallback` for one training.

    What it adds to the trainer's log history is part of every checkpoint, so it survives a kill.
    """
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]  # the library is untyped
        began = 0.0
        last = 0.0
        guard = LossGuard()

        def on_train_begin(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            self.last = time.monotonic()
            for entry in step_entries(state.log_history):
                self.guard.diverged(float(entry["loss"]))
                watch.halving.pieces = int(entry["pieces"])

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(
            self, _: Any, state: Any, control: Any, model: Any = None, **__: Any
        ) -> None:
            finish_work(watch.plan.device)
            self.ended = time.monotonic()
            if watch.aside.held_out is not None and _is_due(watch, state.global_step):
                measured = watch.aside.held_out.measure(model, state.global_step)
                state.log_history.append({"held_out": msgspec.to_builtins(measured)})
                _steer(state, control, watch.aside.held_out, measured)

        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, Any], **___: Any) -> None:
            if "loss" not in logs:
                return
            now, loss = time.monotonic(), float(logs["loss"])
            seconds, wall, self.last = self.ended - self.began, now - self.last, now
            _check(watch.plan, loss, state.global_step, self.guard)
            tokens = watch.tokens[state.global_step - 1]
            # What the student wrote itself, where it learns from that.
            tokens += round(logs.get("completions/mean_length", 0) * watch.plan.batch_size)
            state.log_history[-1].update(
                step_tokens=tokens, seconds=seconds, wall=wall, pieces=watch.halving.pieces
            )
            if is_main_process():
                folder = watch.aside.clock or watch.checkpoints
                write_clock(folder, watch.fingerprint, watch.clock(), watch.energy())
                if watch.on_progress is not None:
                    watch.on_progress(_progress(watch, state.log_history))

        def on_save(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            wait_for_all()  # each process writes files of its own, which the mark must list
            if is_main_process():
                folder = watch.checkpoints / f"checkpoint-{state.global_step}"
                mark_complete(folder, watch.fingerprint)

    return Watcher()


def _is_due(watch: Watch, step: int) -> bool:
    assert watch.aside.held_out is not None  # noqa: S101 (asked by the caller)
    return step % watch.aside.held_out.every == 0 or step == watch.steps


def _steer(state: Any, control: Any, held_out: HeldOut, newest: Measured) -> None:
    """Save the best weights so far, and stop when nothing has been gained for long."""
    measured = measurements(state.log_history)
    best = best_of(measured)
    if best is not None and best.step == newest.step:
        state.best_metric, state.best_global_step = best.loss, best.step
        control.should_save = True  # the trainer never removes the best one's checkpoint
    if is_over(measured, held_out.patience):
        control.should_training_stop = True


def _check(plan: Plan, loss: float, step: int, guard: LossGuard) -> None:
    """Raises `UserError` for a loss that is no number, or has been far too high for long."""
    lower = f"lower student.learning_rate (it is {plan.learning_rate:g}) and run again"
    if not math.isfinite(loss):
        raise UserError(f"training stopped: the loss became {loss} at step {step}; {lower}")
    if guard.diverged(loss):
        raise UserError(
            f"training stopped: the loss has diverged; at step {step} it is {loss:.3g}, far above "
            f"the best it was, and has been so for many steps; {lower}, or raise "
            "student.warmup_ratio"
        )


def _progress(watch: Watch, history: list[dict[str, Any]]) -> TrainProgress:
    entries = step_entries(history)
    newest, step = entries[-1], len(entries)
    recent = entries[-PACE_STEPS:]
    pace = sum(one["wall"] for one in recent) / sum(watch.positions[step - len(recent) : step])
    measured = measurements(history)
    seconds = watch.clock()
    return TrainProgress(
        step=step,
        steps=watch.steps,
        loss=float(newest["loss"]),
        tokens_per_second=newest["step_tokens"] / max(newest["seconds"], 1e-9),
        seconds=seconds,
        seconds_left=pace * sum(watch.positions[step:]),
        mfu=_mfu(watch, step, newest["seconds"]),
        held_out_loss=measured[-1].loss if measured else None,
        cost=round(watch.aside.hour_price * seconds / 3600),
        note="; ".join(filter(None, [_note(measured, step), *watch.halving.untold()])),
    )


def _note(measured: Sequence[Measured], step: int) -> str:
    if not measured or measured[-1].step != step:
        return ""
    best = best_of(measured)
    word = "the best so far" if best is not None and best.step == step else "not better"
    return f"held-out loss {measured[-1].loss:.4f}, {word}"


def _mfu(watch: Watch, step: int, seconds: float) -> float | None:
    """The share of the devices' peak that the step's own operations were, without recomputation."""
    plan = watch.aside.outlook
    if plan is None or plan.speed is None or plan.speed.peak is None:
        return None
    operations = plan.flops / plan.padded_tokens * watch.positions[step - 1]
    return operations / max(seconds, 1e-9) / (plan.speed.peak * process_count())
