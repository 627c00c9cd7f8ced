"""A case of the GPU benchmark on this machine: its model, its tokens, its clock and its figures."""

from __future__ import annotations

import gc
import importlib.util
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import SHAPES, Case
from benchmarks.harness import HERE

LENGTH, BATCH = 2048, 16  # tokens of an example at most, examples of a step
WARM, TIMED = 2, 4  # steps
PROMPT = 16  # tokens without loss: of nearly all, so that MFU counts what is done
RANK, ALPHA = 16, 32
# Made once for QLoRA, whose base is quantized while it is read.
FOLDERS = HERE.parent / "build" / "bench" / "gpu"


class Skipped(Exception):
    """This machine lacks what the case is about."""


class Done(Exception):
    """Enough steps were timed."""


class Watch:
    """Times the steps after the first ones."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.began = self.seconds = 0.0

    def step(self, number: int) -> None:
        """Step `number` is done; raises `Done` after the last one."""
        if number == WARM:
            self.wait()
            self.began = time.perf_counter()
        if number == WARM + TIMED:
            self.wait()
            self.seconds = time.perf_counter() - self.began
            raise Done

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()


class Bench:
    """A case on this machine: its model's shape, tokens and device; `dry` is tiny and on a CPU."""

    def __init__(self, case: Case, work: Path, *, dry: bool) -> None:
        from tests.tiny_student import make_tokenizer

        self.case, self.work, self.dry = case, work, dry
        self.device = "cpu" if dry else "cuda"
        self.shape = SHAPES["tiny" if dry else case.shape]
        self.length, self.batch = (64, 4) if dry else (LENGTH, BATCH)
        self.tokenizer = make_tokenizer(chat=True)
        self.config().save_pretrained(work)

    def config(self) -> Any:
        """A Llama config of the shape."""
        from transformers import LlamaConfig

        end = self.tokenizer.eos_token_id
        return LlamaConfig(
            **self.shape, max_position_embeddings=4096, eos_token_id=end, bos_token_id=0
        )

    def model(self, dtype: Any, attention: str | None = None) -> Any:
        """Random weights, made on the device."""
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        with torch.device(self.device):
            return AutoModelForCausalLM.from_config(
                self.config(), dtype=dtype, attn_implementation=attention
            )

    def base(self) -> Path:
        """A base folder: config, tokenizer and, where they are read, random weights in bfloat16.

        Only QLoRA reads weights, which are quantized on the way; they are made once. Elsewhere
        there is a file without any, since a folder without is no base.
        """
        import torch
        from safetensors.torch import save_file

        read = self.case.method == "qlora"
        folder = self.work / "base" if self.dry or not read else FOLDERS / self.case.shape
        if not (folder / "tokenizer.json").is_file():
            if read:
                self.model(torch.bfloat16).save_pretrained(folder)
                free()
            else:
                self.config().save_pretrained(folder)
                save_file({"none": torch.zeros(1)}, folder / "model.safetensors")
            self.tokenizer.save_pretrained(folder)
        return folder

    def dataset(self) -> Path:
        """A dataset folder, whose one record stands for the case's tokens."""
        from selfinstruct.steps.tables import write_parquet
        from tests.tiny_student import rows

        path = self.work / "dataset" / "data" / "train-00000-of-00001.parquet"
        write_parquet(path, "default", rows()[:1])
        return self.work / "dataset"

    def lengths(self) -> list[int]:
        """Tokens of each example, for all steps."""
        count = (WARM + TIMED + 1) * self.batch
        if self.case.lengths == "whole":
            return [self.length] * count
        rng = random.Random(0)  # Alpaca's are about log-normal: median 80 tokens, few above 300
        return [
            min(max(int(rng.lognormvariate(4.4, 0.6)), PROMPT + 8), self.length)
            for _ in range(count)
        ]

    def examples(self) -> list[tuple[list[int], list[int]]]:
        """Prompt and answer of each example, random ids."""
        rng = random.Random(1)
        top = self.shape["vocab_size"]
        made = [[rng.randrange(4, top) for _ in range(length)] for length in self.lengths()]
        return [(ids[:PROMPT], ids[PROMPT:]) for ids in made]


def timed(bench: Bench, watch: Watch, order: Sequence[int]) -> dict[str, Any]:
    """Tokens a second without padding, MFU without recomputation, and the memory's peak.

    MFU counts what the examples take, whatever was computed: padding counts for nothing. `order` is
    that of the examples, of which the timed steps had those after the first ones.
    """
    from selfinstruct.steps.planning.accelerators import known_gpu
    from selfinstruct.steps.planning.model import measure_model
    from selfinstruct.steps.planning.speed import step_flops

    size = measure_model(bench.work, bench.case.shape)
    whole = bench.lengths()
    part = slice(WARM * bench.batch, (WARM + TIMED) * bench.batch)
    lengths = [whole[at] for at in order[part]]
    tokens = sum(lengths)
    flops = sum(step_flops(size, bench.case.method, 1, length) for length in lengths)
    gpu = known_gpu(device_name(bench.device))
    return {
        "tokens": tokens,
        "seconds": round(watch.seconds, 3),
        "tokens_per_s": tokens / watch.seconds,
        "tflops_per_s": flops / watch.seconds / 1e12,
        "mfu": None if gpu is None else flops / watch.seconds / gpu.flops,
        "peak_gib": peak(bench.device),
        "parameters": size.parameters,
    }


def peak(device: str) -> float:
    """GiB at the peak: those PyTorch reserved on the GPU, or the process's memory."""
    from selfinstruct.steps.training.runtime import peak_memory

    return (peak_memory(device) or 0) / 2**30


def device_name(device: str) -> str:
    """The GPU's name, or "cpu"."""
    import torch

    return str(torch.cuda.get_device_name()) if device == "cuda" else device


def needs(package: str) -> None:
    """Raises `Skipped` where `package` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise Skipped(f"{package} is not installed")


def free() -> None:
    """Give back what is no longer used."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
