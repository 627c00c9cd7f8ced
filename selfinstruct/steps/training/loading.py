"""Load a tokenizer or a model from a folder on this machine; the Hub is never asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfinstruct.core.errors import UserError


def load_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer in `folder`; `name` is the model's for messages. Raises `UserError`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(name, "tokenizer", error) from None


def load_model(folder: Path, name: str, *, device: str, dtype: Any) -> Any:
    """The causal language model in `folder`, in evaluation mode.

    Args:
        folder: config and weights.
        name: the model's name for messages.
        device: "cpu", "cuda" or "mps".
        dtype: the torch dtype of its parameters.

    Raises `UserError` for an encoder-decoder, an unknown architecture, or weights that are missing:
    transformers would fill those with random numbers and only warn.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if getattr(config, "is_encoder_decoder", False):
            raise UserError(
                f"student.base: {name}: is an encoder-decoder ({config.model_type}); "
                "this trainer fine-tunes decoders (causal language models) only"
            )
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa" if device == "cuda" else None,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _cannot_load(name, "model", error) from None
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"student.base: {name}: its files lack weights: {', '.join(missing[:3])}{more}"
        )
    model.eval()
    return model.to(device)


def check_vocabulary(model: Any, tokenizer: Any, name: str) -> None:
    """Raises `UserError` where the tokenizer has more tokens than the model has embeddings."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"student.base: {name}: its tokenizer has {len(tokenizer)} tokens, its model only "
            f"{rows}: they do not belong together"
        )


def context_length(folder: Path) -> int | None:
    """The positions the model in `folder` has, or None where its config does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def stored_dtype(folder: Path) -> Any:
    """The dtype that the weights in `folder` are stored in, by their config; float32 if unsaid."""
    import torch
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(folder, local_files_only=True).dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def _cannot_load(name: str, what: str, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"student.base: {name}: its {what} cannot be loaded ({first})")
