"""Load a tokenizer or a model from a folder on this machine; the Hub is never asked."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import UserError
from selfinstruct.steps.model_config import check_writes, first_line, load_config
from selfinstruct.steps.model_files import weight_files
from selfinstruct.steps.training.runtime import check_method

# One of these files at least comes with every tokenizer.
_TOKENIZER = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")


def load_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer in `folder`; `name` is the model's for messages. Raises `UserError`."""
    from transformers import AutoTokenizer

    if not any(path.is_file() for pattern in _TOKENIZER for path in folder.glob(pattern)):
        raise UserError(
            f"student.base: {name}: holds no tokenizer ({', '.join(_TOKENIZER)}); fetch it anew"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        load_config(folder, name)  # which it reads too, and whose faults have better words
        raise _cannot_load(name, "tokenizer", error) from None


def load_model(
    folder: Path,
    name: str,
    *,
    device: str,
    dtype: Any,
    quantized: bool = False,
    attention: str | None = None,
) -> Any:
    """The language model in `folder`, causal or encoder-decoder, in evaluation mode.

    Args:
        folder: config and weights.
        name: the model's name for messages.
        device: "cpu", "cuda" or "mps".
        dtype: the torch dtype of its parameters; for a quantized one, what it computes in.
        quantized: hold the linear layers in 4 bits (NF4 with double quantization, as QLoRA does).
        attention: what computes attention, by transformers' name for it.

    Raises `UserError` for an unknown architecture, or weights that are missing: transformers would
    fill those with random numbers and only warn. `MissingDependency` without bitsandbytes.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    check_writes(folder, name)
    config = load_config(folder, name)
    options: dict[str, Any] = {
        "dtype": dtype,
        "local_files_only": True,
        "trust_remote_code": False,
        "ignore_mismatched_sizes": True,  # `_check_weights` tells them in one line
    }
    # Else it is the library's choice: PyTorch's own, where the architecture has it (GPT-J
    # and Gemma 2 have not, and asking for it would refuse them).
    if attention is not None:
        options["attn_implementation"] = attention
    if quantized:
        place = torch.cuda.current_device() if device == "cuda" else device
        options |= {"quantization_config": four_bits(dtype), "device_map": {"": place}}
    try:
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with _plain_linears() if quantized else contextlib.nullcontext():
            model, info = auto.from_pretrained(
                folder, config=config, output_loading_info=True, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _cannot_load(name, "model", error) from None  # ImportError: of an attention's kernel
    except (pickle.UnpicklingError, EOFError):
        raise UserError(
            f"student.base: {name}: {weight_files(folder)[0].name} is damaged, or holds more than "
            "weights, which is not run here; take the model as *.safetensors"
        ) from None
    _check_weights(info, name)
    if quantized:
        _check_quantized(model, name)
    model.eval()
    return model if quantized else model.to(device)


def _check_weights(info: dict[str, Any], name: str) -> None:
    """Raises `UserError` for weights that are missing, or of other shapes than the config says."""
    for key, stored, wanted in sorted(info["mismatched_keys"]):
        raise UserError(
            f"student.base: {name}: config.json and weights do not belong together: {key} is "
            f"{_shape(stored)}, not {_shape(wanted)}"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"student.base: {name}: its files lack weights: {', '.join(missing[:3])}{more}"
        )


def use_liger(model: Any) -> None:
    """Put Liger's kernels in the place of the layers they are for; the loss stays as it is."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    # TRL's fused loss, or this package's, is in the place of Liger's.
    _apply_liger_kernel_to_instance(
        model=model, cross_entropy=False, fused_linear_cross_entropy=False
    )


def _check_quantized(model: Any, name: str) -> None:
    """Raises `UserError` where nothing is held in 4 bits; keeps what is so for training.

    On a CPU with AVX512-BF16 bitsandbytes would rewrite the weights at the first answer, for a
    kernel that has no gradient: training after a measurement would then learn nothing, in silence.
    """
    layers = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    if not layers:
        raise UserError(
            f"student.method: {name} has no linear layers that bitsandbytes can hold in 4 bits; "
            "use lora"
        )
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def _plain_linears() -> Iterator[None]:
    """Falcon made of PyTorch's linear layers instead of its own, which compute the same.

    transformers quantizes layers of exactly that class, and would leave Falcon's as they are
    without a word.
    """
    import torch
    from transformers.models.falcon import modeling_falcon

    own = modeling_falcon.FalconLinear
    modeling_falcon.FalconLinear = torch.nn.Linear
    try:
        yield
    finally:
        modeling_falcon.FalconLinear = own


def four_bits(dtype: Any) -> Any:
    """QLoRA's quantization: NF4, the quantization constants quantized too, computing in `dtype`.

    Raises `MissingDependency` where bitsandbytes is not there.
    """
    check_method("qlora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def is_encoder_decoder(folder: Path, name: str) -> bool:
    """Whether the model in `folder` reads its prompt with an encoder of its own, as T5 does."""
    return bool(load_config(folder, name).is_encoder_decoder)


def check_vocabulary(model: Any, tokenizer: Any, name: str) -> None:
    """Raises `UserError` where the tokenizer has more tokens than the model has embeddings."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"student.base: {name}: its tokenizer has {len(tokenizer)} tokens, its model only "
            f"{rows}: they do not belong together"
        )


def context_length(folder: Path, name: str) -> int | None:
    """The positions the model in `folder` has, or None where its config does not say."""
    found = getattr(load_config(folder, name), "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def stored_dtype(folder: Path, name: str) -> Any:
    """The dtype that the weights in `folder` are stored in, by their config; float32 if unsaid."""
    import torch

    found = load_config(folder, name).dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def _cannot_load(name: str, what: str, error: Exception) -> UserError:
    return UserError(f"student.base: {name}: its {what} cannot be loaded ({first_line(error)})")


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(str(size) for size in sizes)
