"""What training and evaluation share about this machine and its libraries."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import MissingDependency, RecipeError, UserError

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")
_CHATTY = (*PACKAGES[1:6], "huggingface_hub", "bitsandbytes")


def check_packages(purpose: str) -> None:
    """Raises `MissingDependency` for the first package that is not there; imports nothing."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "train", purpose)


def check_method(method: str) -> None:
    """Raises `MissingDependency` where the package that `method` needs is not there."""
    if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependency("bitsandbytes", "qlora", "student.method=qlora")


def check_optimizer(name: str, *, sharded: bool, split_rates: bool = False) -> None:
    """Raises `MissingDependency` or `RecipeError` where the optimizer called `name` cannot be.

    With `split_rates`, where matrices of an adapter have rates of their own.
    """
    if split_rates and sharded:
        raise RecipeError(
            "student.lora_plus_ratio: a model that is split among processes has one learning rate; "
            "leave it out"
        )
    if name != "adamw_8bit":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependency("bitsandbytes", "qlora", "student.optimizer=adamw_8bit")
    if sharded:
        raise RecipeError(
            "student.optimizer: adamw_8bit cannot be split among processes; set it to adamw"
        )


def versions() -> dict[str, str]:
    """The versions of the libraries that the result depends on."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def prepare_process() -> None:
    """Set what the libraries read from the environment; best called before they are imported.

    Threads that wait for work sleep instead of spinning: on cores shared with anything else,
    spinning threads keep the one they wait for from running, and generation on two busy cores was
    eight times slower. And nobody counts users: TRL would tell the Hub of every trainer made.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # the same for LLVM's and Intel's OpenMP
    # Products in bfloat16 are compiled for each length of batch, and kept: by default to 0.9 GiB.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "128")  # PyTorch's
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    # Batches of many lengths leave holes in a GPU's memory that is handed out in fixed pieces.
    if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    # The environment is read at import, which may lie behind us.
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, advice and deprecation notes of the libraries off the terminal.

    Nothing is hidden where the logger `selfinstruct` is set to DEBUG.
    """
    if logging.getLogger("selfinstruct").isEnabledFor(logging.DEBUG):
        yield
        return
    import datasets
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    datasets_bars = datasets.are_progress_bars_disabled()
    transformers_bars = transformers_logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not datasets_bars:
            datasets.enable_progress_bars()
        if transformers_bars:
            transformers_logging.enable_progress_bar()


def choose_device(wanted: str) -> str:
    """`wanted`, or for "auto" the best that is there: "cuda", "mps" or "cpu".

    Of several processes on GPUs, each gets its own. Raises `RecipeError` for a device this machine,
    or this build of PyTorch, has not, and `UserError` where there are fewer GPUs than processes.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next((name for name, found in there.items() if found), "cpu")
    if not there.get(wanted, True):
        raise RecipeError(
            f"student.device: {wanted!r} is not there for PyTorch {torch.__version__}; "
            "set it to auto or cpu"
        )
    if wanted == "cuda" and "LOCAL_RANK" in os.environ:
        _take_gpu(int(os.environ["LOCAL_RANK"]))
    return wanted


def _take_gpu(number: int) -> None:
    """Have this process use GPU `number`, its own. Raises `UserError` where there is none."""
    import torch

    if number >= torch.cuda.device_count():
        raise UserError(
            f"--processes: each process takes a GPU of its own, and this machine has "
            f"{torch.cuda.device_count()}; give at most as many"
        )
    torch.cuda.set_device(number)


def describe_device(device: str) -> str:
    """`device` for people, such as "cpu (2 threads)"."""
    import torch

    if device == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads)" if device == "cpu" else device


def use_all_cores() -> None:
    """Let PyTorch use every core this process may run on, unless OMP_NUM_THREADS says else."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(cores or 1)


def compute_dtype(device: str) -> Any:
    """The dtype to compute in: bfloat16 where the GPU has it, else float32."""
    import torch

    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def training_dtype(device: str) -> Any:
    """The dtype that training computes in: `compute_dtype`; bfloat16 on a processor that has it."""
    import torch

    if device == "cpu":
        return torch.bfloat16 if has_bfloat16() else torch.float32
    return compute_dtype(device)


def has_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16; without, it imitates them.

    Only one of x86 is asked.
    """
    import torch

    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def weight_dtype(device: str, *, trained: bool) -> Any:
    """The dtype of the base's weights; those that are trained stay in float32.

    Small updates to a bfloat16 weight are rounded away.
    """
    import torch

    return torch.float32 if trained else compute_dtype(device)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Whatever a trainer sets, products in float32 are as exact afterwards as they were before.

    With torch.compile it lets GPUs round what goes into them to 10 bits (TF32), and a merged model
    would then be compared with its adapter in that.
    """
    import torch

    before = torch.backends.fp32_precision
    try:
        yield
    finally:
        torch.backends.fp32_precision = before


def finish_work(device: str) -> None:
    """Return when the GPU has done what it was given, so that a clock can be read."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def free_memory() -> None:
    """Give back what is no longer used: trainers refer to themselves, which hides that they are."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reset_peak(device: str) -> None:
    """Forget the peak of memory so far, where the system can."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux alone has it; the whole process's peak then
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int | None:
    """Bytes that this process had at its peak since `reset_peak`; None where it cannot be read.

    On a GPU what PyTorch reserved there, otherwise the memory resident.
    """
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    try:
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
