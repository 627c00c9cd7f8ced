"""What is told after each step, and when a loss says that a training has gone wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

# Steps after which the plan's time is corrected by their speed.
CORRECTED_AFTER = 20
# A loss this many times its best smoothed value, and so much above it, for so many steps in a row.
FAR_TIMES, FAR_ABOVE, FAR_STEPS = 2.0, 1.0, 30
SMOOTHING = 0.9


class TrainProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One step that is done, of `steps`.

    `tokens_per_second` counts no padding. `mfu` is the share of the device's peak that was used,
    None where the peak is not known; `held_out_loss` is the newest one. `cost` is in picodollars,
    `seconds` what the training took so far, `seconds_left` what it will take at this pace. `note`
    says what else happened, `stage` names the training after fine-tuning that the step is of.
    """

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds: float
    seconds_left: float | None = None
    mfu: float | None = None
    held_out_loss: float | None = None
    cost: int = 0
    note: str = ""
    stage: str = ""


OnProgress = Callable[[TrainProgress], None]


def corrected_seconds(walls: Sequence[float], positions: Sequence[int]) -> float | None:
    """What a training takes in all, foreseen from its first steps.

    Args:
        walls: seconds of each step so far, with what happened between them.
        positions: token positions of every step, padding included.

    None before there are enough steps. The first one, which warms things up, says nothing of the
    others; the rest of the work takes as long a position as theirs.
    """
    if len(walls) < CORRECTED_AFTER:
        return None
    known = walls[:CORRECTED_AFTER]
    pace = sum(known[1:]) / sum(positions[1:CORRECTED_AFTER])
    return sum(known) + pace * sum(positions[CORRECTED_AFTER:])


class LossGuard:
    """Tells a loss that has diverged: far above the best it was, for many steps on end."""

    def __init__(self) -> None:
        self._smooth: float | None = None
        self._best = float("inf")
        self._far = 0

    def diverged(self, loss: float) -> bool:
        """Whether `loss`, the newest one, completes such a stretch."""
        before = loss if self._smooth is None else self._smooth
        self._smooth = SMOOTHING * before + (1 - SMOOTHING) * loss
        self._best = min(self._best, self._smooth)
        far = self._smooth > max(FAR_TIMES * self._best, self._best + FAR_ABOVE)
        self._far = self._far + 1 if far else 0
        return self._far >= FAR_STEPS
