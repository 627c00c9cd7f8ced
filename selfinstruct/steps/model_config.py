"""A model folder before its weights are loaded: its config, and whether its files are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import UserError
from selfinstruct.steps.model_files import weight_files

_INDEX = "model.safetensors.index.json"
_DAMAGED = "is cut short or damaged; fetch it anew"
_LENGTH = 8  # bytes at the start of a safetensors file that say how long its header is


def load_config(folder: Path, name: str) -> Any:
    """The transformers config of the model in `folder`; `name` is the model's, for messages.

    Code that comes with a model is never run. Raises `UserError` for a config that cannot be read,
    or an architecture that transformers does not know.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    faults = (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except faults as error:
        why = _unknown(folder) or f"its config.json cannot be read ({first_line(error)})"
        raise UserError(f"student.base: {name}: {why}") from None


def _unknown(folder: Path) -> str | None:
    """What transformers does not know about the config in `folder`; None if it is another fault."""
    import transformers

    try:
        config = _read_json(folder / "config.json")
    except (OSError, ValueError):
        return None
    kind = config.get("model_type")
    if kind is None:
        return "its config.json names no model_type; fetch it anew, or choose another base"
    if kind in transformers.CONFIG_MAPPING:
        return None
    if "auto_map" in config:
        return (
            f"its architecture {kind} is code that comes with the model, which is not run here; "
            "choose a base that transformers has itself"
        )
    return (
        f"transformers {transformers.__version__} has no architecture {kind}; "
        "update it (pip install -U transformers), or choose another base"
    )


def check_writes(folder: Path, name: str) -> None:
    """Raises `UserError` where the model in `folder` is not one that writes text.

    transformers makes a causal model of BERT's files too, whose attention sees the answer that it
    is to learn: its loss falls, and it cannot write.
    """
    from transformers.models.auto import modeling_auto as auto

    config = load_config(folder, name)
    kind, whole = config.model_type, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if getattr(config, "is_encoder_decoder", False):
        writes = kind in whole
    else:
        masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        gaps = masked and not getattr(config, "is_decoder", True)
        writes = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not gaps
        if gaps or kind in whole:
            kind = f"{kind} encoder"
    if not writes:
        pictures = kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        lacks = "reads pictures too" if pictures else "does not write on from a prompt"
        raise UserError(
            f"student.base: {name}: is a {kind}, which {lacks}; choose a causal language model for "
            "text alone, such as Llama, or an encoder-decoder, such as Flan-T5"
        )


def check_files(folder: Path, name: str) -> None:
    """Raises `UserError` where config or weights in `folder` are torn, as half a download is.

    Of a safetensors file the header is read, which says how long the file must be.
    """
    shards: list[str] = []
    for file in ("config.json", _INDEX):
        try:
            found = _read_json(folder / file)
        except (OSError, ValueError):
            raise UserError(f"student.base: {name}: {file} {_DAMAGED}") from None
        if file == _INDEX and not (folder / "model.safetensors").is_file():
            shards = sorted(set(found.get("weight_map", {}).values()))
    for shard in shards:
        if not (folder / shard).is_file():
            raise UserError(f"student.base: {name}: {shard} is not there; fetch the model anew")
    for path in weight_files(folder):
        if path.suffix == ".safetensors" and not _is_whole(path):
            raise UserError(f"student.base: {name}: {path.name} {_DAMAGED}")


def first_line(error: Exception) -> str:
    """What a library's error says first, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file. Raises `OSError`, `ValueError`."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return found


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if not 2 <= length <= size - _LENGTH:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for at, tensor in header.items() if at[:2] != "__"]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return False
    return _LENGTH + length + max(ends, default=0) == size
