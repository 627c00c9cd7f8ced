"""Training in several processes: what torchrun, accelerate and Slurm are told."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from selfinstruct.cli.main import cli
from selfinstruct.core.errors import UserError
from selfinstruct.steps import processes
from selfinstruct.steps.launch import (
    ZERO3,
    Launch,
    Sharding,
    accelerate_config,
    plan_launch,
    train_command,
)
from tests.tiny_student import make_base, make_run

RUN = Path("/runs/my run")


def plan(launcher: Any, sharding: Sharding = "ddp", **options: Any) -> Launch:
    return plan_launch(
        launcher, RUN, sharding=sharding, processes=4, python="/venv/bin/python", **options
    )


def test_torchrun_starts_a_process_a_gpu() -> None:
    """The command runs train-student under torchrun, with no files."""
    launch = plan("torchrun")
    assert launch.files == {}
    assert launch.line == (
        "/venv/bin/python -m torch.distributed.run --standalone --nproc-per-node=4 "
        "-m selfinstruct train-student '/runs/my run'"
    )


@pytest.mark.parametrize("sharding", ["ddp", "fsdp", "zero3"])
def test_accelerate_takes_the_file(sharding: Sharding, tmp_path: Path) -> None:
    """accelerate's own reader and its launcher's checks take what is written."""
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    launch = plan_launch("accelerate", tmp_path, sharding=sharding, processes=4)
    for name, text in launch.files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    read = load_config_from_file(str(tmp_path / f"launch/{sharding}.yaml"))
    assert isinstance(read, ClusterConfig)
    assert read.num_processes == 4
    arguments = launch_command_parser().parse_args(launch.command[3:])
    checked, _, _ = _validate_launch_command(arguments)
    assert checked.use_fsdp == (sharding == "fsdp")
    assert checked.use_deepspeed == (sharding == "zero3")
    assert (checked.training_script, checked.module) == ("selfinstruct", True)
    if sharding == "fsdp":
        assert int(checked.fsdp_version) == 2
    if sharding == "zero3":
        assert json.loads(Path(checked.deepspeed_config_file).read_text()) == ZERO3


# The keys that DeepSpeed documents for these sections (https://www.deepspeed.ai/docs/config-json/).
KNOWN = {
    "": {
        "bf16", "zero_optimization", "gradient_accumulation_steps", "gradient_clipping",
        "train_batch_size", "train_micro_batch_size_per_gpu", "steps_per_print",
        "wall_clock_breakdown",
    },
    "bf16": {"enabled"},
    "zero_optimization": {
        "stage", "overlap_comm", "contiguous_gradients", "reduce_bucket_size",
        "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "sub_group_size",
        "stage3_max_live_parameters", "stage3_max_reuse_distance",
        "stage3_gather_16bit_weights_on_model_save",
    },
}  # fmt: skip


def test_deepspeeds_file_has_known_keys_and_is_filled_in(tmp_path: Path) -> None:
    """Every key is documented, and the trainer's own code leaves nothing on "auto"."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig
    from transformers import AutoModelForCausalLM, TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    assert set(ZERO3) == KNOWN[""]
    for section in ("bf16", "zero_optimization"):
        assert set(ZERO3[section]) == KNOWN[section]
    # The trainer's class is whole only where DeepSpeed is installed: its methods on accelerate's.
    filling = {name: it for name, it in vars(HfTrainerDeepSpeedConfig).items() if name[:2] != "__"}
    made = type("Filled", (HfDeepSpeedConfig,), filling)
    model = AutoModelForCausalLM.from_pretrained(make_base(tmp_path / "base"))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=4,
        use_cpu=True, report_to="none",
    )  # fmt: skip
    config = made(ZERO3)
    config._dtype, config.mismatches = None, []
    config.trainer_config_process(arguments)
    config.trainer_config_finalize(arguments, model, 10)
    assert "auto" not in json.dumps(config.config)
    assert config.config["train_batch_size"] == 8
    assert config.is_zero3()


@pytest.mark.parametrize("sharding", ["ddp", "fsdp", "zero3"])
def test_slurms_script_is_a_script(sharding: Sharding, tmp_path: Path) -> None:
    """bash takes it, sbatch's lines are there, and each node knows its rank and the head."""
    launch = plan("slurm", sharding, nodes=2)
    assert launch.line == "sbatch '/runs/my run/launch/train.sbatch'"
    text = launch.files["launch/train.sbatch"]
    for line in ("#SBATCH --nodes=2", "#SBATCH --gpus-per-node=4", "#SBATCH --requeue"):
        assert line in text.splitlines()
    assert "#SBATCH --job-name='my run'" in text.splitlines()
    assert "#SBATCH --cpus-per-task=16" in text.splitlines()
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in text.splitlines()
    script = tmp_path / "train.sbatch"
    script.write_text(text)
    assert subprocess.run([shutil.which("bash") or "bash", "-n", str(script)]).returncode == 0
    # What srun would start on the second node, with the environment that Slurm gives it.
    work = text[text.index("srun ") :].removeprefix("srun ")
    said = subprocess.run(
        ["bash", "-c", f'printf "%s\\n" {work}'],
        env={"HEAD": "n1", "SLURM_JOB_ID": "7", "SLURM_NODEID": "1"},
        capture_output=True,
        text=True,
    ).stdout
    if sharding == "ddp":
        assert "--nnodes=2" in said
        assert "--rdzv-endpoint=n1:29500" in said
        assert said.splitlines()[-1] == "/runs/my run"
    else:
        inner = shlex.split(said.splitlines()[-1])
        assert inner[inner.index("--machine_rank") + 1] == "$SLURM_NODEID"
        assert inner[inner.index("--config_file") + 1] == f"/runs/my run/launch/{sharding}.yaml"
        assert accelerate_config(sharding, 4, 2)["num_processes"] == 8


def test_what_cannot_be_launched_is_refused() -> None:
    """torchrun cannot split a model, and one command does not start several machines."""
    with pytest.raises(UserError, match="--sharding fsdp needs --launch accelerate or slurm"):
        plan("torchrun", "fsdp")
    with pytest.raises(UserError, match="--nodes is for --launch slurm"):
        plan("accelerate", nodes=2)


@pytest.mark.parametrize(
    ("gpus", "batch", "device", "used"),
    [
        (0, 16, "auto", 1),
        (1, 16, "auto", 1),
        (4, 16, "auto", 4),
        (3, 16, "auto", 2),
        (8, 16, "cpu", 1),
    ],
)
def test_all_gpus_that_share_the_batch_are_used(
    monkeypatch: pytest.MonkeyPatch, gpus: int, batch: int, device: str, used: int
) -> None:
    """A process for each GPU, as far as the batch divides evenly; none where a CPU is asked for."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert processes.gpus_to_use(batch, device) == used


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--go"], "--launch"),
        (["--nodes", "2"], "--launch"),
        (["--sharding", "fsdp"], "--launch"),
        (["--plan", "--launch", "slurm"], "give one of them"),
    ],
)
def test_options_that_would_be_ignored_are_errors(options: list[str], says: str) -> None:
    """They are refused before anything is opened."""
    result = CliRunner().invoke(cli, ["train-student", "no-such-run", *options])
    assert isinstance(result.exception, UserError)
    assert says in str(result.exception)


def test_the_command_writes_the_files_and_prints_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--launch starts nothing by itself."""
    folder = make_run(tmp_path / "run", tmp_path / "base")
    monkeypatch.setattr(
        "selfinstruct.api.Run.write_dataset", lambda self: SimpleNamespace(faulty=0, held_out=1)
    )
    arguments = ["--launch", "accelerate", "--sharding", "zero3", "--processes", "2"]
    result = CliRunner().invoke(cli, ["train-student", str(folder.path), *arguments])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((folder.path / "launch/zero3.yaml").read_text())["num_processes"] == 2
    assert "accelerate.commands.launch --config_file" in result.stdout
    assert not folder.student.exists()
    if importlib.util.find_spec("deepspeed") is None:
        result = CliRunner().invoke(cli, ["train-student", str(folder.path), *arguments, "--go"])
        assert "pip install deepspeed" in str(result.exception)


@pytest.mark.slow
def test_processes_are_started_and_their_fault_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two processes train one student; where they fail, one says why, and the exit code is that of
    the fault."""
    base = make_base(tmp_path / "base")
    student = {"max_steps": 2, "merge": False}
    folder = make_run(tmp_path / "run", base, student=student)
    assert processes.run_processes(train_command(folder.path), 2) == 0
    assert (folder.student / "training.json").is_file()
    make_run(folder.path, base, student=student | {"max_length": 9999})
    capfd.readouterr()
    assert processes.run_processes(train_command(folder.path), 2) == UserError.exit_code
    assert capfd.readouterr().err.count("student.max_length: ") == 1


def test_what_all_processes_meet_is_said_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask the launcher's store; where there is none, each speaks for itself."""
    from torch.distributed import TCPStore

    assert [processes.is_first_to_say("no base") for _ in "ab"] == [True, True]
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in {**told, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    said = ["no base", "no base", "out of memory", "no base"]
    assert [processes.is_first_to_say(one) for one in said] == [True, False, True, False]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert processes.is_first_to_say("no base")
    monkeypatch.delenv("MASTER_PORT")
    assert processes.is_first_to_say("no base")
