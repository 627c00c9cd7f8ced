"""What a GPU has of its own in a training, shown where there is none."""

from __future__ import annotations

import gc
import os
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
import pytest

from selfinstruct.core.errors import UserError
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.stages.train import train_student
from selfinstruct.steps.planning.throughput import Throughput
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training import preference, sft
from selfinstruct.steps.training.halving import Halving, is_out_of_memory
from selfinstruct.steps.training.inputs import Inputs
from selfinstruct.steps.training.runtime import choose_device, exact_products, prepare_process
from selfinstruct.steps.training.watch import Aside, Watch, watcher
from tests.test_train_families import PLAN, teach
from tests.tiny_student import make_base, make_run, rows

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine of two GPUs; those that this process was given."""
    found: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", found.append)
    return found


def test_each_process_takes_a_gpu_of_its_own(
    taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its rank on this machine; one for which there is none says so."""
    assert choose_device("auto") == "cuda"
    assert taken == []
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    assert taken == [1, 1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="this machine has 2; give at most as many"):
        choose_device("auto")


def test_processes_on_a_processor_take_no_gpu(
    taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where there are fewer GPUs than processes."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("cpu") == "cpu"
    assert taken == []


def test_a_step_lasts_until_the_gpu_has_done_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seconds, and so tokens a second and MFU, are not those of handing out the work."""
    monkeypatch.setattr("torch.cuda.synchronize", lambda: time.sleep(0.05))
    watch = Watch(
        plan=msgspec.structs.replace(PLAN, device="cuda"), tokens=[8], positions=[8],
        checkpoints=tmp_path, fingerprint="mark", clock=lambda: 0.0, aside=Aside(),
        halving=Halving(),
    )  # fmt: skip
    callback, state = watcher(watch), SimpleNamespace(global_step=1, log_history=[{"loss": 1.0}])
    callback.on_train_begin(None, SimpleNamespace(log_history=[]), None)
    callback.on_step_begin()
    callback.on_step_end(None, state, None)
    callback.on_log(None, state, None, logs={"loss": 1.0})
    assert state.log_history[0]["seconds"] >= 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has it on Linux")
def test_a_gpus_memory_is_handed_out_in_growing_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has set how, by the old name or the new one."""
    for given, expected in (
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, "backend:native"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, None),
    ):
        for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        prepare_process()
        assert os.environ.get("PYTORCH_ALLOC_CONF") == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("Triton Error [CUDA]: out of memory", True),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_memory_that_ran_out_is_told_by_what_is_said(said: str, expected: bool) -> None:
    """CUDA's libraries have errors of their own for it."""
    assert is_out_of_memory(RuntimeError(said)) == expected


def test_products_are_as_exact_after_a_training_as_before() -> None:
    """torch.compile's trainer rounds those in float32 on a GPU; comparing models must not."""
    import torch

    before = torch.backends.fp32_precision
    with exact_products():
        torch.backends.fp32_precision = "tf32"
    assert torch.backends.fp32_precision == before


@pytest.mark.usefixtures("float32_processor")
def test_trls_kernel_gives_the_loss_without_its_figures(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where each of TRL's figures would have the processor wait: the same losses,
    padding and accumulation included, and nothing is gathered."""
    from accelerate import Accelerator

    plan = msgspec.structs.replace(PLAN, batch_size=6, micro_batch_size=3, epochs=2)
    plain = msgspec.structs.replace(plan, sparse_head=False)
    expected = teach(base, plain, tmp_path / "trl", rows()).fitted.losses
    monkeypatch.setattr(sft, "add_answer_head", lambda _: False)
    monkeypatch.setattr(Accelerator, "gather_for_metrics", lambda *_: pytest.fail("it waited"))
    found = teach(base, plan, tmp_path / "ours", rows()).fitted.losses
    assert [step.loss for step in found] == pytest.approx(
        [step.loss for step in expected], rel=1e-5
    )


def optimizers() -> list[Any]:
    """Those that are alive; types are compared, as asking a dead weak proxy raises an error."""
    import torch

    return [one for one in gc.get_objects() if issubclass(type(one), torch.optim.Optimizer)]


def test_an_optimizer_is_gone_before_the_next_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its moments are as large as the model or larger, and trainers refer to themselves."""
    data = tmp_path / "pairs.jsonl"
    data.write_bytes(orjson.dumps({"prompt": "Say warm", "chosen": "Warm.", "rejected": "No."}))
    alive: list[Any] = []
    plain = preference.build

    def build(*given: Any) -> Any:
        alive.extend(one for one in optimizers() if one.state and one not in earlier)
        return plain(*given)

    monkeypatch.setattr(preference, "build", build)
    gc.collect()
    earlier = weakref.WeakSet(optimizers())
    gc.disable()
    try:
        student = {"max_steps": 2, "merge": False, "preference": {"data": str(data)}}
        train_student(make_run(tmp_path / "run", base, student=student))
    finally:
        gc.enable()
    assert alive == []


def test_a_kernel_that_cannot_be_loaded_is_done_without(base: Path, tmp_path: Path) -> None:
    """Where the recipe leaves attention open: PyTorch's is used, unpacked, and the reason told."""
    config = StudentConfig(base=str(base), device="cpu", max_length=96)
    dataset = make_run(tmp_path, base).dataset
    inputs = Inputs(config, dataset, Policy(local=True), system="", seed=0)
    flash = Throughput(attention="flash_attention_2", chosen="flash_attention_2", packing=True)
    plan = msgspec.structs.replace(inputs.plan, throughput=flash)
    _, found, notes = inputs.load(plan)
    assert found.throughput == Throughput()
    assert notes[0].startswith("trained with sdpa attention, micro-batches")
    assert notes[1].startswith("flash_attention_2 was not used: student.base")
    assert "\n" not in notes[1]
