"""Training on several devices: the files and the command that torchrun, accelerate or Slurm take.

    ddp     every process holds the whole model (torchrun needs no file for it)
    fsdp    weights, gradients and states are split among the processes: PyTorch's FSDP2
    zero3   the same by DeepSpeed's ZeRO stage 3

Everything else, such as batch, precision and learning rate, stays in the recipe: the files say only
how processes are started and what they share. Where a run is stopped, the same command continues.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from selfinstruct.core.errors import UserError

Launcher = Literal["torchrun", "accelerate", "slurm"]
Sharding = Literal["ddp", "fsdp", "zero3"]
PORT = 29500
CORES_PER_GPU = 4  # the process, its two data workers, and one to spare
FOLDER = "launch"


class Launch(msgspec.Struct, frozen=True):
    """What to start: `files` by path relative to the run folder, and the command line."""

    files: dict[str, str]
    command: list[str]

    @property
    def line(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.command)


def plan_launch(
    launcher: Launcher,
    run: Path,
    *,
    sharding: Sharding = "ddp",
    processes: int,
    nodes: int = 1,
    python: str = sys.executable,
) -> Launch:
    """How to train the run in folder `run`.

    Args:
        launcher: what starts the processes.
        run: the run folder, which all nodes must see.
        sharding: what the processes share.
        processes: processes on each node, one a GPU.
        nodes: machines.
        python: the interpreter, the same on all nodes.

    Raises `UserError` for a combination that there is no command for.
    """
    if launcher == "torchrun" and sharding != "ddp":
        raise UserError(
            f"--sharding {sharding} needs --launch accelerate or slurm: torchrun alone cannot "
            "split a model"
        )
    if launcher != "slurm" and nodes > 1:
        raise UserError("--nodes is for --launch slurm; start other machines by hand otherwise")
    plain = sharding == "ddp" and launcher != "accelerate"
    files = {} if plain else _configs(run, sharding, processes, nodes)
    if launcher == "slurm":
        script = _sbatch(run, sharding, processes, nodes, python)
        files[f"{FOLDER}/train.sbatch"] = script
        return Launch(files, ["sbatch", str(run / FOLDER / "train.sbatch")])
    return Launch(files, _start(launcher, run, sharding, processes, python))


def train_command(run: Path) -> list[str]:
    """What each process does, as arguments behind ``-m``."""
    return ["selfinstruct", "train-student", str(run)]


def _start(
    launcher: Launcher, run: Path, sharding: Sharding, processes: int, python: str
) -> list[str]:
    if launcher == "torchrun":
        starter = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    else:
        starter = ["accelerate.commands.launch", "--config_file", str(_config_path(run, sharding))]
    return [python, "-m", *starter, "-m", *train_command(run)]


def _config_path(run: Path, sharding: Sharding) -> Path:
    return run / FOLDER / f"{sharding}.yaml"


def _configs(run: Path, sharding: Sharding, processes: int, nodes: int) -> dict[str, str]:
    """accelerate's file, and DeepSpeed's beside it for zero3."""
    config = accelerate_config(sharding, processes, nodes)
    files = {}
    if sharding == "zero3":
        path = f"{FOLDER}/zero3.json"
        config["deepspeed_config"]["deepspeed_config_file"] = str(run / path)
        files[path] = json.dumps(ZERO3, indent=2) + "\n"
    return {f"{FOLDER}/{sharding}.yaml": yaml.safe_dump(config, sort_keys=False), **files}


def accelerate_config(sharding: Sharding, processes: int, nodes: int) -> dict[str, Any]:
    """accelerate's configuration for `processes` on each of `nodes`."""
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero3": "DEEPSPEED"}[sharding],
        "num_machines": nodes,
        "num_processes": processes * nodes,
        "machine_rank": 0,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
        "mixed_precision": "no",  # the trainer's own: set by what the GPU can do
    }
    if sharding == "fsdp":
        config["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
            "fsdp_offload_params": False,
            # The weights are read by every process: the run's base is a folder on its disk.
            "fsdp_cpu_ram_efficient_loading": False,
        }
    elif sharding == "zero3":
        config["deepspeed_config"] = {
            "deepspeed_config_file": "",
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": False,
        }
        del config["mixed_precision"]  # DeepSpeed's own file says it
    return config


# https://www.deepspeed.ai/docs/config-json/. What is "auto" is filled in by the trainer from the
# recipe; the rest is ZeRO stage 3 with communication overlapped, and whole weights when it saves.
ZERO3: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "sub_group_size": 1_000_000_000,
        "stage3_max_live_parameters": 1_000_000_000,
        "stage3_max_reuse_distance": 1_000_000_000,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "steps_per_print": 1_000_000,
    "wall_clock_breakdown": False,
}


def _sbatch(
    run: Path,
    sharding: Sharding,
    processes: int,
    nodes: int,
    python: str,
) -> str:
    folder = shlex.quote(str(run.absolute()))
    work = shlex.join(train_command(run.absolute()))
    if sharding == "ddp":
        start = (
            f"{shlex.quote(python)} -m torch.distributed.run --nnodes={nodes} "
            f"--nproc-per-node={processes} \\\n"
            "  --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint=$HEAD:"
            f"{PORT} \\\n  -m {work}"
        )
    else:
        config = shlex.quote(str(_config_path(run.absolute(), sharding)))
        inner = (
            f"{shlex.quote(python)} -m accelerate.commands.launch --config_file {config}"
            ' --machine_rank "$SLURM_NODEID" --main_process_ip "$HEAD"'
            f" --main_process_port {PORT} -m {work}"
        )
        start = f"bash -c {shlex.quote(inner)}"
    return (
        "#!/bin/bash\n"
        f"#SBATCH --job-name={shlex.quote(run.absolute().name)}\n"
        f"#SBATCH --nodes={nodes}\n"
        "#SBATCH --ntasks-per-node=1\n"
        f"#SBATCH --gpus-per-node={processes}\n"
        # Slurm gives a task one core where nothing is said, and srun does not ask what sbatch did.
        f"#SBATCH --cpus-per-task={CORES_PER_GPU * processes}\n"
        "# Preempted, or on a node that fails, the job is put back and continues. After its time\n"
        "# limit (--time, the cluster's own where not given) submit it again: it continues too.\n"
        "#SBATCH --requeue\n"
        f"#SBATCH --output={folder}/{FOLDER}/slurm-%j.log\n"
        "set -euo pipefail\n"
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\n"
        'export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
        f"srun {start}\n"
    )
