"""The callback that times steps, stops on a broken loss and marks whole checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training.checkpoints import mark_complete, write_clock
from selfinstruct.steps.training.plan import Plan, StepLog, is_main_process

# Called after each step with step, steps in all, loss and tokens per second.
OnProgress = Callable[[int, int, float, float], None]


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the callback needs to know of a training.

    `tokens` are those of each step, without padding; where the trainer writes its own answers, they
    are taken from its log. `clock` tells the seconds this training has taken so far.
    """

    plan: Plan
    steps: int
    tokens: list[int]
    checkpoints: Path
    fingerprint: str
    clock: Callable[[], float]
    on_progress: OnProgress | None


def watcher(watch: Watch) -> Any:
    """A transformers `TrainerCallback` for one training."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]  # the library is untyped
        last = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.monotonic()

        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, Any], **___: Any) -> None:
            if "loss" not in logs:
                return
            loss, seconds = float(logs["loss"]), time.monotonic() - self.last
            tokens = watch.tokens[state.global_step - 1]
            if not math.isfinite(loss):
                raise UserError(
                    f"training stopped: the loss became {loss} at step {state.global_step}; lower "
                    f"student.learning_rate (it is {watch.plan.learning_rate:g}) and run again"
                )
            # The log history is part of every checkpoint, so these survive a kill.
            state.log_history[-1].update(step_tokens=tokens, seconds=seconds)
            if is_main_process():
                write_clock(watch.checkpoints, watch.fingerprint, watch.clock())
                if watch.on_progress is not None:
                    speed = tokens / max(seconds, 1e-9)
                    watch.on_progress(state.global_step, watch.steps, loss, speed)

        def on_save(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            if is_main_process():
                folder = watch.checkpoints / f"checkpoint-{state.global_step}"
                mark_complete(folder, watch.fingerprint)

    return Watcher()


def step_logs(history: list[dict[str, Any]]) -> list[StepLog]:
    """The steps in a trainer's log history."""
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
