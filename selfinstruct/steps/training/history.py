"""What a trainer's log history tells: it is part of every checkpoint, and so survives a kill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from selfinstruct.steps.training.held_out import Measured
from selfinstruct.steps.training.plan import StepLog


def step_entries(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of steps in a trainer's log history."""
    return [entry for entry in history if "loss" in entry]


def measurements(history: Sequence[dict[str, Any]]) -> list[Measured]:
    """What was measured on held-out records, from a trainer's log history."""
    found = (entry["held_out"] for entry in history if "held_out" in entry)
    return [msgspec.convert(one, Measured) for one in found]


def step_logs(history: Sequence[dict[str, Any]]) -> list[StepLog]:
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
        for entry in step_entries(history)
    ]


def wall_seconds(history: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds of each step, with what happened between them."""
    return [float(entry["wall"]) for entry in step_entries(history)]
