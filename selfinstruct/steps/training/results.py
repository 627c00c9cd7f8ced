"""A trained model, brought onto the disk: adapter, merged model, or both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from selfinstruct.steps.planning.memory import Method
from selfinstruct.steps.swap import replacing
from selfinstruct.steps.training.adapters import load_adapter
from selfinstruct.steps.training.base import Base
from selfinstruct.steps.training.export import CHECK_PROMPTS, merge, save_adapter, save_model
from selfinstruct.steps.training.format import Examples, StudentFormat
from selfinstruct.steps.training.loading import load_model, stored_dtype
from selfinstruct.steps.training.measures import spread
from selfinstruct.steps.training.runtime import weight_dtype
from selfinstruct.steps.training.summary import SUMMARY


def whole(base: Base, method: Method, saved: Path) -> Any:
    """The trained model in `saved`, of which each process had a part, on the processor."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # ZeRO-3's processes would load it together; this one is alone now
    full = method == "full"
    source = saved if full else base.folder
    model = load_model(source, base.name, device="cpu", dtype=weight_dtype("cpu", trained=full))
    return model if full else load_adapter(model, saved)


def write_student(
    model: Any,
    base: Base,
    form: StudentFormat,
    examples: Examples,
    folder: Path,
    *,
    method: Method,
    merged: bool,
    device: str,
) -> str | None:
    """Write the student's adapter, its merged model, or both, into `folder`.

    Args:
        model: as trained, with its adapter around it unless `method` is "full".
        base, form: what was trained, and how records are written for it.
        examples: whose prompts adapter and merged model are compared on.
        folder: the run's student folder; what is there of another student is removed.
        method: how it was trained.
        merged: whether the merged model is wanted too.
        device: where it is merged.

    Returns the dtype of the merged model, or None where there is none. Raises `SelfInstructError`
    where it differs from the adapter.
    """
    (folder / SUMMARY).unlink(missing_ok=True)  # the student is about to be another one
    shutil.rmtree(folder / "gguf", ignore_errors=True)
    if method == "full":
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        dtype = stored_dtype(base.folder, base.name)
        with replacing(folder / "merged") as new:
            save_model(model, new, form, dtype)
        return str(dtype).removeprefix("torch.")
    with replacing(folder / "adapter") as new:
        save_adapter(model, new, base, form)
    del model
    if not merged:
        shutil.rmtree(folder / "merged", ignore_errors=True)
        return None
    chosen = spread(len(examples.kept), CHECK_PROMPTS)
    prompts = [examples.kept[at].prompt for at in chosen]
    with replacing(folder / "merged") as new:
        return merge(base, folder / "adapter", new, form, prompts, device)
