"""The plan's count of a GPU's memory beside that of a simulated training step; needs no GPU.

    python -m benchmarks.gpu.simulated                      # all cases, a few minutes
    python -m benchmarks.gpu.simulated --cases full-7b --check

A model of real size goes forward and backward on tensors that have shapes and no data (PyTorch's
FakeTensorMode), in the dtypes of a training on CUDA, with this package's adapter and TRL's fused
loss, and what each operation allocates is added up. The second of two micro-batches is looked at,
when the gradients are there already. What is left out: the CUDA context and the libraries'
workspaces, which the plan has as overhead and leaves out here too, and fragmentation.

Target: the plan is within 20%.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.cases import SHAPES
from benchmarks.harness import Findings, Target, machine, table, versions, write

RESULTS = Path(__file__).parent.parent / "results" / "gpu_simulated.json"
ERROR = 0.20
GIB = 2**30
BLOCK = 512  # bytes that CUDA's allocator gives at least


@dataclass(frozen=True)
class Step:
    """A training step: `rows` examples of `length` tokens, all of them answers, go forward."""

    shape: str
    method: Literal["lora", "full"]
    rows: int
    length: int
    recompute: bool
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"


STEPS: dict[str, Step] = {
    "lora-7b": Step("7b", "lora", 2, 2048, recompute=False),
    "lora-7b-recomputed": Step("7b", "lora", 2, 2048, recompute=True),
    "full-7b": Step("7b", "full", 2, 2048, recompute=False),
    "full-7b-recomputed": Step("7b", "full", 2, 2048, recompute=True),
    "full-7b-8bit": Step("7b", "full", 2, 2048, recompute=False, optimizer="adamw_8bit"),
    "lora-8b": Step("8b", "lora", 2, 2048, recompute=False),
    "full-8b-recomputed": Step("8b", "full", 2, 2048, recompute=True),
    "lora-1b": Step("1b", "lora", 8, 2048, recompute=False),
    "full-1b": Step("1b", "full", 8, 2048, recompute=False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """1 with --check where the plan is off by more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(STEPS))
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    given = parser.parse_args(argv)
    found = Findings()
    for name in given.cases.split(","):
        found.begin(name)
        step = STEPS[name]
        simulated, counted = simulate(config_of(step.shape), step), planned(step)
        error = counted / simulated - 1
        found.note(simulated_gib=simulated / GIB, planned_gib=counted / GIB, memory_error=error)
        found.target("memory, off the plan by", abs(error), ERROR, "of it")
        print(f"{name}: {simulated / GIB:.1f} GiB, plan {error:+.1%}", flush=True)
    table("Simulated memory", [{"case": name} | part for name, part in found.parts.items()])
    write(RESULTS, found, {"machine": machine(), "versions": versions("torch", "trl", "peft")})
    missed: list[Target] = [target for target in found.targets if not target.met]
    return int(given.check and bool(missed))


def config_of(shape: str, layers: int | None = None) -> Any:
    """A Llama config of the shape, with fewer layers where `layers` says so."""
    from transformers import LlamaConfig

    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096)
    config.num_hidden_layers = layers or config.num_hidden_layers
    return config


def planned(step: Step, layers: int | None = None) -> int:
    """Bytes that the plan foresees, without its overhead."""
    from selfinstruct.steps.planning.memory import training_memory
    from selfinstruct.steps.planning.model import measure_model

    with tempfile.TemporaryDirectory() as folder:
        config_of(step.shape, layers).save_pretrained(folder)
        size = measure_model(Path(folder), step.shape)
    memory = training_memory(
        size, step.method, "cuda", rows=step.rows, length=step.length, recompute=step.recompute,
        optimizer=step.optimizer,
    )  # fmt: skip
    return memory.total - memory.overhead


def simulate(config: Any, step: Step) -> int:
    """Bytes at the peak of the second micro-batch."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from trl.trainer.utils import add_fused_lm_head

    from selfinstruct.steps.planning.memory import MOMENTS
    from selfinstruct.steps.training.mixed import mixed_precision

    model = _model(config, step)
    tracker = _tracker()
    with FakeTensorMode(), tracker, _loss_in_place():
        _give_storage(model)
        if step.recompute:
            model.activation_checkpointing_enable()
            model.enable_input_require_grads()
        own = model.get_base_model() if step.method == "lora" else model
        add_fused_lm_head(own, outputs=("log_probs", "entropy", "is_top1"))
        embedding = own.get_input_embeddings().weight
        each = dict.fromkeys(model.parameters(), MOMENTS[step.optimizer])
        each[embedding] = MOMENTS["adamw"]  # the trainer has bitsandbytes leave it in 32 bits
        _moments = [
            torch.empty(int(bytes_each * weight.numel()), dtype=torch.uint8)
            for weight, bytes_each in each.items()
            if weight.requires_grad
        ]
        model.train()
        low = torch.bfloat16
        # These tensors are said to be on a processor. The base is in bfloat16 already, as on a GPU,
        # so that LoRA's layers copy nothing.
        lora = mixed_precision(model, "cpu", low, compiled=False)
        with lora if step.method == "lora" else contextlib.nullcontext():
            for _ in range(2):
                tracker.peak = tracker.live
                ids = torch.zeros(step.rows, step.length, dtype=torch.long)
                with torch.autocast("cpu", low):
                    out = model(input_ids=ids, labels=ids, fused_lm_head=True)
                loss = -out.log_probs.sum() / ids.numel()
                del out
                loss.backward()
                del loss, ids
    return int(tracker.peak)


def _model(config: Any, step: Step) -> Any:
    """The model without storage, in the dtypes of a training on CUDA, its adapter around it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    full = step.method == "full"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if full else torch.bfloat16
        )
        if full:
            return model
        adapter = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, adapter)


def _give_storage(model: Any) -> None:
    """Make each parameter and buffer anew where the tracker sees it; shared ones stay shared."""
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for named in (module._parameters, module._buffers):
            for name, old in named.items():
                if old is None:
                    continue
                if id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    is_parameter = isinstance(old, torch.nn.Parameter)
                    made[id(old)] = (
                        torch.nn.Parameter(new, requires_grad=old.requires_grad)
                        if is_parameter
                        else new
                    )
                named[name] = made[id(old)]


@contextlib.contextmanager
def _loss_in_place() -> Iterator[None]:
    """TRL's loss as on CUDA: its kernels write where they read, its sums have no copy."""
    from trl.kernels import chunked_logprob as loss

    names = ("_forward_tile", "_backward_tile", "_addmm_fp32")
    before = {name: getattr(loss, name) for name in names}
    for name in names:
        setattr(loss, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(loss, name, function)


def _tracker() -> Any:
    """A mode that adds up the storage of all that operations return while it is alive."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Tracker(TorchDispatchMode):  # type: ignore[misc]  # the library is untyped
        live = peak = 0

        def __init__(self) -> None:
            super().__init__()
            self.sizes: dict[int, int] = {}

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            for one in tree_leaves(found):
                if isinstance(one, torch.Tensor):
                    self.add(one.untyped_storage())
            return found

        def add(self, storage: Any) -> None:
            key = storage._cdata
            if key in self.sizes:
                return
            self.sizes[key] = -(-storage.nbytes() // BLOCK) * BLOCK
            self.live += self.sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.drop, key)

        def drop(self, key: int) -> None:
            self.live -= self.sizes.pop(key)

    return Tracker()


if __name__ == "__main__":
    sys.exit(main())
