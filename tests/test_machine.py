"""What the doctor reports: this machine, and the models that fit it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.steps import machine
from selfinstruct.steps.fits import Fit, what_fits
from selfinstruct.steps.machine import Gpu, Machine, inspect_machine
from selfinstruct.steps.planning.memory import GIB, LENGTHS, Method, training_memory
from selfinstruct.steps.planning.shapes import STUDENTS, TEACHERS, Shape

H200 = "NVIDIA H200, 143771, 143000\n"


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    """This machine, without keys of the environment."""
    return inspect_machine(tmp_path, environ={})


def test_this_machine_is_described(here: Machine) -> None:
    """Cores, memory and disk are those of the operating system, within its limits."""
    assert here.python == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert GIB / 4 < here.ram < 64 * 1024 * GIB
    assert 0 <= here.ram_free <= here.ram
    assert here.disk_free > 0


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """The free space is that of the nearest folder above the one to be made."""
    assert inspect_machine(tmp_path / "outputs" / "run", environ={}).disk_free > 0


def test_packages_are_those_of_the_extras(here: Machine) -> None:
    """Every extra of the distribution is listed with versions that import would give."""
    by_extra = {package.extra for package in here.packages}
    assert {"train", "publish", "local", "report", "openai", "anthropic"} <= by_extra
    assert "all" not in by_extra
    torch = next(package for package in here.packages if package.name == "torch")
    assert torch.version == machine.version_of("torch")
    assert machine.version_of("no-such-package-here") is None
    assert machine.extras_packages("no-such-package-here") == []


def test_nothing_heavy_is_imported() -> None:
    """Looking at the machine imports neither torch nor a client, so that it is quick."""
    code = (
        "import sys; from selfinstruct.steps.machine import inspect_machine; inspect_machine();"
        "from selfinstruct.steps import fits;"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'xllamacpp', 'openai')"
        " if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout.strip() == "[]", child.stderr


def test_keys_are_named_and_never_shown(tmp_path: Path) -> None:
    """Variables that are set are listed by name; an empty one is not set; no value is kept."""
    environ = {"OPENAI_API_KEY": "sk-very-secret", "HF_TOKEN": "", "OTHER_KEY": "x"}
    found = inspect_machine(tmp_path, environ=environ)
    assert found.keys == ["OPENAI_API_KEY"]
    assert b"very-secret" not in msgspec.json.encode(found)


def fake_smi(folder: Path, text: str, status: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {status}\n", "utf-8")
    program.chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="a shell script stands in for nvidia-smi")
def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of nvidia-smi is a GPU; one that fails or is missing means there is none."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    fake_smi(tmp_path, H200 + "NVIDIA RTX A2000, Laptop, 4096, 4000\n")
    first, second = machine.find_gpus(0, 0)
    assert (first.name, first.memory, first.free) == ("NVIDIA H200", 143771 << 20, 143000 << 20)
    assert second.name == "NVIDIA RTX A2000, Laptop"
    fake_smi(tmp_path, "NVIDIA-SMI has failed\n", status=9)
    assert machine.find_gpus(0, 0) == []
    (tmp_path / "nvidia-smi").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_gpus(0, 0) == []


@given(st.text(max_size=200))
def test_any_answer_of_nvidia_smi_is_survived(text: str) -> None:
    """Lines that are no GPU (MIG, "[N/A]", errors) are left out instead of failing."""
    for gpu in machine.read_nvidia_smi(text):
        assert gpu.memory >= 0


def with_gpu(here: Machine, gib: int, build: str = "cuda") -> Machine:
    gpu = Gpu(kind="cuda", name="a GPU", memory=gib * GIB, free=gib * GIB)
    return msgspec.structs.replace(here, gpus=[gpu], torch_build=build)


def test_a_gpu_that_torch_cannot_use_is_idle(here: Machine) -> None:
    """With a CPU build of torch a GPU counts for nothing in training, and the doctor can say so."""
    cpu_build = with_gpu(here, 80, "cpu")
    assert cpu_build.gpu is None
    assert cpu_build.idle_gpu
    assert {fit.device for fit in what_fits(cpu_build) if fit.role == "student"} == {"cpu"}
    usable = with_gpu(here, 80)
    assert usable.gpu == usable.gpus[0]
    assert not usable.idle_gpu


# Parameter counts as the models' safetensors files on the Hub have them.
PUBLISHED = {
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.3-70B": 70_553_706_496,
    "Mistral-7B-v0.3": 7_248_023_552,
}


def test_shapes_have_the_published_parameter_counts() -> None:
    """Each table row, multiplied out, is exactly the model's published size."""
    shapes = {shape.name: shape.parameters for shape in (*STUDENTS, *TEACHERS)}
    assert shapes == PUBLISHED


# Peak resident memory in GiB of this package's trainer on a CPU, two steps, rank 16, half of the
# tokens learned: shape, method, tokens of a micro-batch, whether it computes in bfloat16, GiB.
SMALL = Shape("67M", 576, 1536, 11, 9, 3, 49_152)
WIDE = Shape("88M", 576, 1536, 4, 9, 3, 128_256)
MEASURED = [
    (SMALL, "lora", 256, True, 1.15),
    (SMALL, "lora", 256, False, 1.07),
    (SMALL, "lora", 1024, True, 1.52),
    (SMALL, "lora", 2048, True, 1.80),
    (SMALL, "lora", 2048, False, 2.55),
    (SMALL, "full", 2048, True, 2.66),
    (WIDE, "lora", 256, True, 1.28),
    (WIDE, "lora", 1024, True, 1.60),
    (STUDENTS[0], "lora", 256, True, 1.73),
    (STUDENTS[0], "lora", 1024, True, 2.53),
    (STUDENTS[0], "lora", 1024, False, 3.45),
    (STUDENTS[0], "lora", 2048, True, 3.46),
    (STUDENTS[0], "full", 256, True, 3.02),
    (STUDENTS[1], "lora", 256, True, 3.24),
    (STUDENTS[5], "lora", 128, True, 10.57),
]


@pytest.mark.parametrize(("shape", "method", "tokens", "mixed", "gib"), MEASURED)
def test_formula_agrees_with_measured_peaks(
    shape: Shape, method: Method, tokens: int, mixed: bool, gib: float
) -> None:
    """The formula is within 15% of what was measured, which met one length alone."""
    counted = training_memory(
        shape.size, method, "cpu", rows=1, length=tokens, mixed=mixed, answers=0.5
    )
    lengths = LENGTHS if mixed else 0
    assert (counted.total - lengths) / GIB == pytest.approx(gib, rel=0.15)


def test_trls_loss_takes_more_memory_on_a_processor() -> None:
    """It holds every position's logits; where the head runs on answers alone, few are held."""
    size = SMALL.size
    ours, theirs = (
        training_memory(size, "lora", "cpu", rows=1, length=2048, sparse_head=sparse)
        for sparse in (True, False)
    )
    assert ours.loss < theirs.loss / 4
    assert ours.activations == theirs.activations


def test_adapter_size_is_that_of_lora_on_all_linear_maps() -> None:
    """Rank 16 on SmolLM2-135M trains the 4,884,480 parameters that PEFT reports."""
    assert STUDENTS[0].size.adapter(16) == 4_884_480


def chosen(machine_: Machine, model: str, how: str) -> Fit:
    return next(fit for fit in what_fits(machine_) if (fit.model, fit.how) == (model, how))


def test_what_fits_grows_with_memory_and_shrinks_with_batch(here: Machine) -> None:
    """More memory never unfits a model, longer batches never need less."""
    small = {(f.model, f.how) for f in what_fits(with_gpu(here, 16)) if f.fits}
    large = {(f.model, f.how) for f in what_fits(with_gpu(here, 80)) if f.fits}
    assert small < large
    short = {(f.model, f.how): f.need for f in what_fits(here, max_length=128)}
    assert all(f.need >= short[f.model, f.how] for f in what_fits(here, max_length=1024))


def test_eight_billion_parameters_on_one_gpu(here: Machine) -> None:
    """An 8B student takes LoRA on 80 GiB, its full fine-tune does not fit there."""
    assert chosen(with_gpu(here, 80), "Llama-3.1-8B", "lora").fits
    assert not chosen(with_gpu(here, 80), "Llama-3.1-8B", "full").fits
    tight = chosen(with_gpu(here, 24), "Llama-3.1-8B", "lora")
    assert tight.fits
    assert "student.merge: false" in tight.note


def test_methods_that_recipes_cannot_name_are_marked(here: Machine) -> None:
    """QLoRA is counted, and said not to be on offer as long as a recipe cannot ask for it."""
    from selfinstruct.core.sections.student import StudentConfig

    can_ask = "qlora" in str(StudentConfig.model_fields["method"].annotation)
    fit = chosen(here, "SmolLM2-360M", "qlora")
    assert fit.offered == can_ask
    assert bool(fit.note) == (not can_ask)


def test_teachers_use_all_gpus(here: Machine) -> None:
    """Two GPUs serve what one cannot; vLLM's format is listed only where there is CUDA."""
    one = with_gpu(here, 40)
    two = msgspec.structs.replace(one, gpus=one.gpus * 2)
    assert not chosen(one, "Llama-3.3-70B", "Q4_K_M").fits
    assert chosen(two, "Llama-3.3-70B", "Q4_K_M").fits
    assert "bfloat16" in {fit.how for fit in what_fits(two)}
    no_gpu = msgspec.structs.replace(here, gpus=[])
    assert "bfloat16" not in {fit.how for fit in what_fits(no_gpu)}
