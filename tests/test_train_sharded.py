"""A model that two processes split by FSDP2, by the files of --launch accelerate, on processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import read_summary, train_student
from selfinstruct.steps.launch import plan_launch
from selfinstruct.steps.training.base import Base
from selfinstruct.steps.training.results import whole
from tests.tiny_student import make_base, make_run, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo's reduce-scatter is on Linux"),
    # PEFT reads a property that this transformers calls by another name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
CHILD = Path(__file__).parent / "sharded_child.py"
SETTINGS: dict[str, Any] = {
    "epochs": 41 / 7, "micro_batch_size": 1, "learning_rate": 1e-3, "eval_steps": 4,
    "save_steps": 2, "merge": False,
}  # fmt: skip


def make(folder: Path, base: Path, **settings: Any) -> RunFolder:
    return make_run(folder, base, train=rows()[:7], test=rows()[7:], student=SETTINGS | settings)


def environment(folder: Path) -> dict[str, str]:
    """What accelerate's launcher tells each process of the file for FSDP2."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    launch = plan_launch("accelerate", folder, sharding="fsdp", processes=2)
    for name, text in launch.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    given, _, _ = _validate_launch_command(launch_command_parser().parse_args(launch.command[3:]))
    told: dict[str, str] = prepare_multi_gpu_env(given)
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return dict(os.environ) | {
        name: value for name, value in told.items() if name.startswith(("FSDP_", "ACCELERATE_"))
    } | own  # fmt: skip


def split(folder: RunFolder, precision: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Train in two processes that split the model."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(CHILD), str(folder.path), precision, *more]
    told = environment(folder.path)
    return subprocess.run(command, env=told, capture_output=True, text=True, timeout=280)


def losses(done: subprocess.CompletedProcess[str]) -> list[float]:
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.usefixtures("float32_processor")
def test_a_split_model_learns_what_a_whole_one_does(tmp_path: Path) -> None:
    """Full fine-tuning of a model whose head is its embedding, killed and gone on with: losses,
    measurements and weights are those of one process, up to rounding."""
    import torch
    from safetensors.torch import load_file

    base = make_base(tmp_path / "base", tied=True)
    alone = make(tmp_path / "alone", base, method="full")
    expected = train_student(alone)
    folder = make(tmp_path / "split", base, method="full")
    killed = split(folder, "float32", "7")
    assert killed.returncode != 0
    assert [path.name for path in (folder.student / "checkpoints").glob("*-6/complete.json")]
    found = losses(split(folder, "float32"))
    assert found == pytest.approx([step.loss for step in expected.losses], rel=1e-4)
    summary = read_summary(folder)
    assert summary is not None
    assert [one.loss for one in summary.held_out] == pytest.approx(
        [one.loss for one in expected.held_out], rel=1e-4
    )
    one, other = (load_file(run.student / "merged/model.safetensors") for run in (alone, folder))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("float32_processor")
def test_a_split_model_in_bfloat16_keeps_its_sums(tmp_path: Path) -> None:
    """LoRA as on a GPU, base and products in bfloat16: the losses are near those of float32 and
    are not themselves rounded; the adapter is whole, in float32."""
    import torch
    from safetensors.torch import load_file

    base = make_base(tmp_path / "base")
    expected = [step.loss for step in train_student(make(tmp_path / "alone", base)).losses]
    folder = make(tmp_path / "split", base)
    found = losses(split(folder, "bfloat16"))
    assert found == pytest.approx(expected, rel=0.03)
    rounded = torch.tensor(found).to(torch.bfloat16).tolist()
    assert sum(loss != low for loss, low in zip(found, rounded, strict=True)) > len(found) / 2
    adapter = load_file(folder.student / "adapter/adapter_model.safetensors")
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}


def test_one_process_alone_loads_what_zero3_put_together(tmp_path: Path) -> None:
    """transformers would have all processes load a model as long as ZeRO-3 is in effect, and the
    others are gone by then."""
    from transformers.integrations import deepspeed

    class Split:
        def is_zero3(self) -> bool:
            return True

    folder, in_effect = make_base(tmp_path / "base"), Split()
    deepspeed.set_hf_deepspeed_config(in_effect)
    assert deepspeed.is_deepspeed_zero3_enabled()
    base = Base(name="tiny", folder=folder, identity="")
    assert whole(base, "full", folder).config.num_hidden_layers == 2
    assert not deepspeed.is_deepspeed_zero3_enabled()
