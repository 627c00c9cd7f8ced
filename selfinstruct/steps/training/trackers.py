"""Experiment trackers: off unless asked for by name, and asked for only where they can be had."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import MissingDependency, PrivacyError

# Trackers that keep what they are told on this machine, whatever their settings.
LOCAL = ("tensorboard",)


def check_trackers(
    names: Sequence[str], *, local: bool, environ: Mapping[str, str] = os.environ
) -> None:
    """Raises `MissingDependency` for one that is not there; imports nothing.

    With `local` (privacy: local) `PrivacyError` for one that would send: wandb passes with
    WANDB_MODE=offline, trackio without a TRACKIO_SPACE_ID.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(name, name, f"student.report_to: {name}")
        if local and _sends(name, environ):
            raise PrivacyError(
                f"student.report_to: {name} would send to its server under privacy: local; "
                f"{_OFFLINE[name]}, or leave it out"
            )


_OFFLINE = {"wandb": "set WANDB_MODE=offline", "trackio": "unset TRACKIO_SPACE_ID"}


def _sends(name: str, environ: Mapping[str, str]) -> bool:
    if name == "wandb":
        return environ.get("WANDB_MODE") not in ("offline", "disabled")
    return name not in LOCAL and bool(environ.get("TRACKIO_SPACE_ID"))


def reporting(names: Sequence[str], run: str) -> dict[str, Any]:
    """Arguments of a trainer's config for the trackers `names`, which call the training `run`."""
    if not names:
        return {}
    return {"report_to": list(names), "run_name": run, "project": "selfinstruct"}


@contextlib.contextmanager
def logs_in(folder: Path) -> Iterator[None]:
    """Have TensorBoard's files in `folder`, unless the user's environment says where."""
    name = "TENSORBOARD_LOGGING_DIR"  # read when the trainer is made
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]
