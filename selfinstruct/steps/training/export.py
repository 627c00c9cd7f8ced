"""What training leaves behind: the adapter, and the student as one model that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from selfinstruct.core.errors import SelfInstructError
from selfinstruct.steps.training.base import Base
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.gguf_base import save_tokenizer
from selfinstruct.steps.training.loading import load_model, stored_dtype
from selfinstruct.steps.training.measures import greedy

# What merged and adapter must agree on, token for token.
CHECK_PROMPTS = 4
CHECK_TOKENS = 24
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def save_adapter(model: Any, folder: Path, base: Base, form: StudentFormat) -> None:
    """Save the adapter of a trained `model` with its tokenizer into `folder`.

    The adapter names its base as the Hub knows it, or not at all: where the base lies on this
    machine is of no use elsewhere. With the name goes the commit that was trained on.
    """
    # "auto" would ask the Hub whether the vocabulary grew; it never does here.
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = orjson.loads(path.read_bytes())
    config["base_model_name_or_path"] = base.hub_id or None
    config["revision"] = base.commit or None
    path.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    save_tokenizer(form.tokenizer, folder)


def save_model(model: Any, folder: Path, form: StudentFormat, dtype: Any) -> None:
    """Save a whole `model` in `dtype` with tokenizer and generation settings; casts it in place."""
    model = model.to(dtype)
    set_generation(model, form)
    model.save_pretrained(folder)
    save_tokenizer(form.tokenizer, folder)


def set_generation(model: Any, form: StudentFormat) -> None:
    """Say which tokens end an answer and pad it, and keep the base's way of sampling.

    A model whose settings name the wrong token never stops, or stops at once.
    """
    from transformers import GenerationConfig

    old = model.generation_config
    sampling: dict[str, Any] = {}
    if old is not None and old.do_sample:
        found = {name: getattr(old, name, None) for name in _SAMPLING}
        sampling = {name: value for name, value in found.items() if value is not None}
        sampling["do_sample"] = True
    stops = form.stop_ids
    ids: dict[str, Any] = {
        "eos_token_id": stops if len(stops) > 1 else stops[0],
        "pad_token_id": form.tokenizer.pad_token_id,
        "bos_token_id": form.tokenizer.bos_token_id,
    }
    start = getattr(model.config, "decoder_start_token_id", None)
    if model.config.is_encoder_decoder and start is not None:
        ids["decoder_start_token_id"] = start
    model.generation_config = GenerationConfig(**ids, **sampling)
    for name, value in ids.items():
        setattr(model.config, name, value)


def merge(
    base: Base,
    adapter: Path,
    folder: Path,
    form: StudentFormat,
    prompts: Sequence[list[int]],
    device: str,
) -> str:
    """Write base and adapter as one model into `folder`, if it answers as they do.

    The written files are loaded again and must give the same greedy tokens on `prompts` as base
    and adapter apart, both computed in float32. They are stored as the base is, and in float32
    where that rounding changed an answer.

    Returns the name of the dtype they are stored in. Raises `SelfInstructError` where even float32
    answers differently: there is then no merged model.
    """
    import torch

    for dtype in dict.fromkeys([stored_dtype(base.folder, base.name), torch.float32]):
        model = _with_adapter(base, adapter, device)
        expected = answers(model, prompts, form)
        save_model(model.merge_and_unload(safe_merge=True), folder, form, dtype)
        del model
        if _answers_in(folder, prompts, form, device) == expected:
            return str(dtype).removeprefix("torch.")
    raise SelfInstructError(
        "the merged student does not answer as base and adapter do, so it was not kept; "
        "the adapter is whole: use it, or train with --set student.merge=false"
    )


def same_answers(
    base: Base,
    adapter: Path,
    merged: Path,
    form: StudentFormat,
    prompts: Sequence[list[int]],
    device: str,
) -> bool:
    """Whether base and adapter answer `prompts` as the merged model does, token for token."""
    expected = answers(_with_adapter(base, adapter, device), prompts, form)
    return _answers_in(merged, prompts, form, device) == expected


def answers(model: Any, prompts: Sequence[list[int]], form: StudentFormat) -> list[list[int]]:
    """The first tokens of the greedy answers of `model`."""
    return greedy(
        model,
        prompts,
        max_new_tokens=CHECK_TOKENS,
        stop_ids=form.stop_ids,
        pad_id=form.tokenizer.pad_token_id,
    )


def _with_adapter(base: Base, adapter: Path, device: str) -> Any:
    import torch
    from peft import PeftModel

    model = load_model(base.folder, base.name, device=device, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter)


def _answers_in(
    folder: Path, prompts: Sequence[list[int]], form: StudentFormat, device: str
) -> list[list[int]]:
    import torch

    model = load_model(folder, "student", device=device, dtype=torch.float32)
    return answers(model, prompts, form)
