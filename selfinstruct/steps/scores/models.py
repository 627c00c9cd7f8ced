"""Load a local model that scores: the same places and checks as for a student's base."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal, NamedTuple

from selfinstruct.core.errors import MissingDependency, UserError
from selfinstruct.steps.privacy import Policy


class Loaded(NamedTuple):
    """A model in evaluation mode on its device. `identity` changes when its files do."""

    model: Any
    tokenizer: Any
    identity: str
    encoder: bool
    folder: Path


def load(
    name: str,
    policy: Policy,
    device: str,
    key: str,
    *,
    task: Literal["language", "reward", "embed"] = "language",
) -> Loaded:
    """The model called `name`, ready to score.

    Args:
        name: a model folder, a GGUF file, a shipped name or a Hub id.
        policy: whether the Hub may be asked.
        device: "auto", "cpu", "cuda" or "mps".
        key: the recipe's key, for messages.
        task: load it as a language model, a sequence classifier, or a bare encoder.

    Raises `UserError` where there is no such model, `MissingDependency` without PyTorch.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "train", f"{key}, a model on this machine,")
    from selfinstruct.steps.training import runtime
    from selfinstruct.steps.training.base import find_base, speaking_of
    from selfinstruct.steps.training.loading import (
        is_encoder_decoder,
        load_model,
        load_tokenizer,
    )

    runtime.prepare_process()
    with speaking_of({"student.base": key, "student.device": "select.device"}), runtime.quiet():
        base = find_base(name, policy)
        tokenizer = load_tokenizer(base.folder, name)
        place = runtime.choose_device(device)
        runtime.use_all_cores()
        if task == "reward":
            model = _classifier(base.folder, name).to(place)
        elif task == "embed":
            model = _encoder(base.folder, name).to(place)
        else:
            dtype = runtime.compute_dtype(place)
            model = load_model(base.folder, name, device=place, dtype=dtype)
        encoder = is_encoder_decoder(base.folder, name)
    return Loaded(model, tokenizer, base.identity[:16], encoder, base.folder)


def _classifier(folder: Path, name: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"student.base: {name}: cannot be loaded ({first})") from None
    missing = sorted(info["missing_keys"])
    if missing:  # they would be random numbers
        raise UserError(
            f"student.base: {name}: is no reward model: its files lack {', '.join(missing[:3])}"
        )
    if model.config.num_labels != 1:
        raise UserError(
            f"student.base: {name}: gives {model.config.num_labels} labels; a reward model gives "
            "one number"
        )
    model.eval()
    return model


def _encoder(folder: Path, name: str) -> Any:
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"student.base: {name}: cannot be loaded ({first})") from None
    model.eval()
    return model
