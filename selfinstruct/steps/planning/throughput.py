"""What makes a training fast, and which of it is in effect: attention, packing, kernels, workers.

None of it changes what is learned, up to rounding. A recipe asks (`Wanted`), `choose` answers for a
base and a device with what is really there (`Throughput`), so that the plan, the trainer and
training.json say the same.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfinstruct.core.errors import MissingDependency, RecipeError
from selfinstruct.steps.model_config import load_config

Attention = Literal[
    "auto", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "eager"
]
# Attention that never looks at what it masks, so that a packed row costs what its examples cost.
APART = ("flash_attention_3", "flash_attention_2", "flex_attention")
# The class's own word for whether an architecture can have it.
_SUPPORT = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
_FLASH_PACKAGES = {
    "flash_attention_2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": ("flash_attn_interface", "see github.com/Dao-AILab/flash-attention"),
}
# Where transformers takes FlashAttention from when its package is not there.
_HUB_KERNELS = {
    "flash_attention_2": "kernels-community/flash-attn2",
    "flash_attention_3": "kernels-community/vllm-flash-attn3",
}
# Processes that prepare batches for a GPU; on a processor they would take the cores that train.
GPU_WORKERS = 2


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe asks for; see `core.sections.student.StudentConfig`."""

    attention: Attention = "auto"
    packing: bool | Literal["auto"] = "auto"
    compile: bool = False
    liger: bool | Literal["auto"] = "auto"
    dataloader_workers: int | Literal["auto"] = "auto"


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What is in effect. `attention` is None where the library chooses, as `chosen` says.

    `packing`: the examples of a micro-batch lie one after another in one row, without padding.
    """

    attention: str | None = None
    chosen: str = "sdpa"
    packing: bool = False
    compile: bool = False
    liger: bool = False
    workers: int = 0

    @property
    def squares(self) -> bool:
        """Whether attention computes a packed row as one whole square."""
        return self.packing and self.chosen not in APART

    @property
    def words(self) -> str:
        """All of it in one line, as the plan and the notes have it."""
        parts = [
            f"{self.chosen} attention",
            "examples packed without padding"
            if self.packing
            else "micro-batches of similar length",
            *(["torch.compile"] if self.compile else []),
            *(["Liger kernels"] if self.liger else []),
            f"data workers: {self.workers or 'none'}",
        ]
        return ", ".join(parts)


def without_flash(found: Throughput, *, insisted: bool) -> Throughput:
    """`found` with PyTorch's attention, and packing only where that is `insisted` on."""
    return msgspec.structs.replace(found, attention=None, chosen="sdpa", packing=insisted)


def choose(folder: Path, name: str, device: str, wanted: Wanted, *, bf16: bool) -> Throughput:
    """What is in effect for the base in `folder`, called `name`, on `device`.

    Args:
        folder: of the base; its config alone is read.
        name: for messages.
        device: "cpu", "cuda" or "mps".
        wanted: what the recipe asks for.
        bf16: whether the device computes in bfloat16, without which FlashAttention cannot.

    Raises `RecipeError` for what the base or the device cannot have, and `MissingDependency` for a
    package that is asked for and not there.
    """
    config, architecture = _architecture(folder, name)
    attention = _attention(architecture, name, device, wanted.attention, bf16=bf16)
    chosen = attention or ("sdpa" if _supports(architecture, "sdpa") else "eager")
    workers = wanted.dataloader_workers
    return Throughput(
        attention=attention,
        chosen=chosen,
        packing=_packing(config, name, chosen, wanted.packing),
        compile=wanted.compile,
        liger=_liger(config, name, device, wanted.liger),
        workers=(GPU_WORKERS if device == "cuda" else 0) if workers == "auto" else workers,
    )


def _architecture(folder: Path, name: str) -> tuple[Any, Any]:
    """The config in `folder` and the class that transformers makes of it."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_config(folder, name)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return config, auto._model_mapping.get(type(config), None)


def _supports(architecture: Any, attention: str) -> bool:
    return attention == "eager" or bool(getattr(architecture, _SUPPORT[attention], False))


def _attention(
    architecture: Any, name: str, device: str, wanted: Attention, *, bf16: bool
) -> str | None:
    """The implementation to ask transformers for; None leaves it to the library."""
    if wanted == "auto":
        usable = device == "cuda" and bf16
        flash = [one for one in APART[:2] if usable and _supports(architecture, one) and _has(one)]
        return flash[0] if flash else None
    key = f"student.attention: {wanted}"
    if not _supports(architecture, wanted):
        raise RecipeError(
            f"{key} is not there for {name} ({architecture.__name__}); set it to auto"
        )
    if wanted == "flex_attention" and device != "cuda":
        raise RecipeError(f"{key} cannot be trained on {device}, only on CUDA; set it to auto")
    if wanted in _FLASH_PACKAGES:
        if device != "cuda" or not bf16:
            raise RecipeError(f"{key} needs a CUDA GPU with bfloat16; set it to auto")
        if not _has(wanted):
            package, install = _FLASH_PACKAGES[wanted]
            raise RecipeError(
                f"{key} needs the package {package!r}, which is not installed ({install}), or its "
                "kernel from the Hub in the local cache; set it to auto"
            )
    return wanted


def _has(flash: str) -> bool:
    """Whether a FlashAttention is here, without asking the Hub for it."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    package = {
        "flash_attention_2": is_flash_attn_2_available,
        "flash_attention_3": is_flash_attn_3_available,
    }[flash]
    return bool(package()) or hub_kernel_is_here(_HUB_KERNELS[flash])


def hub_kernel_is_here(repo: str) -> bool:
    """Whether the `kernels` package is installed and has `repo` in its cache on this machine."""
    if importlib.util.find_spec("kernels") is None:
        return False
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(os.environ.get("KERNELS_CACHE") or HF_HUB_CACHE)
    folders = (f"{kind}--{repo.replace('/', '--')}" for kind in ("kernels", "models"))
    return any(any((cache / folder / "snapshots").glob("*/build")) for folder in folders)


def _packing(config: Any, name: str, attention: str, wanted: bool | Literal["auto"]) -> bool:
    if config.is_encoder_decoder:
        if wanted is True:
            raise RecipeError(
                f"student.packing: {name} is an encoder-decoder, whose examples cannot be packed; "
                "set it to auto or false"
            )
        return False
    return attention in APART if wanted == "auto" else wanted


def _liger(config: Any, name: str, device: str, wanted: bool | Literal["auto"]) -> bool:
    if wanted is False or (wanted == "auto" and device != "cuda"):
        return False
    if importlib.util.find_spec("liger_kernel") is None:
        if wanted == "auto":
            return False
        raise MissingDependency("liger-kernel", "liger", "student.liger=true")
    if device != "cuda":
        raise RecipeError(
            f"student.liger: its kernels run on CUDA, not on {device}; set it to auto"
        )
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    known = config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
    if wanted is True and not known:
        raise RecipeError(
            f"student.liger: it has no kernels for {name} ({config.model_type}); set it to auto"
        )
    return known
