"""Trainings of a tiny student that are killed at random moments, for tests and benchmarks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import read_summary, train_student
from tests.tiny_student import make_run, rows

# Dropout draws random numbers, so a generator that is not restored shows; measuring moves the best
# weights about; a checkpoint each few steps makes kills fall into the writing of one.
SETTINGS = {
    "epochs": 30,
    "lora_dropout": 0.2,
    "save_steps": 4,
    "eval_steps": 5,
    "merge": False,
    "learning_rate": 0.003,
}
STEPS = 53
CHILD = """
import sys
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import train_student
def told(progress):
    print(progress.step, flush=True)
train_student(RunFolder(sys.argv[1]), on_progress=told)
"""


def make(folder: Path, base: Path, **settings: Any) -> RunFolder:
    """A run to be trained in `STEPS` steps."""
    return make_run(folder, base, train=rows()[:7], test=rows()[7:], student=SETTINGS | settings)


def start(folder: RunFolder, processes: int = 1) -> subprocess.Popen[str]:
    """A training in `processes`; the first prints each step."""
    script = folder.path / "child.py"
    script.write_text(CHILD)
    starter = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *(starter if processes > 1 else []), str(script), str(folder.path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: RunFolder, processes: int = 1) -> None:
    """Train to the end; one process alone is this one, which has the libraries loaded."""
    if processes == 1:
        train_student(folder)
        return
    child = start(folder, processes)
    _, said = child.communicate(timeout=280)
    if child.returncode:
        raise AssertionError(said)


def kill_at(folder: RunFolder, step: int, delay: float, processes: int = 1) -> bool:
    """Train, and kill -9 all its processes `delay` seconds after `step`; False if it was over."""
    child = start(folder, processes)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= step:
            time.sleep(delay)
            break
    alive = child.poll() is None
    if alive:  # torchrun's processes have sessions of their own, and would outlive it
        for pid in [*_children(child.pid), child.pid]:
            os.kill(pid, signal.SIGKILL)
    _, said = child.communicate()
    if not alive and child.returncode:
        raise AssertionError(said)
    return alive


def _children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    answer = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in answer.stdout.split()]


def kill_often(folder: RunFolder, kills: int, seed: int, processes: int = 1) -> int:
    """Train `folder` and kill it `kills` times, at random and ever later; how many it were."""
    rng = random.Random(seed)
    for number in range(kills):
        step = rng.randint(5, 9) + (STEPS - 12) * number // kills
        if not kill_at(folder, step, rng.uniform(0, 0.15), processes):
            return number
    return kills


def differences(one: RunFolder, other: RunFolder) -> list[str]:
    """What differs between two trained students: losses, measurements, tensors of the adapter."""
    from safetensors.torch import load_file

    first, second = read_summary(one), read_summary(other)
    if first is None or second is None:
        return ["not trained"]
    found = []
    if [step.loss for step in first.losses] != [step.loss for step in second.losses]:
        found.append("losses")
    if [step.tokens for step in first.losses] != [step.tokens for step in second.losses]:
        found.append("tokens")
    if (first.held_out, first.best_step) != (second.held_out, second.best_step):
        found.append("measurements")
    name = "adapter/adapter_model.safetensors"
    tensors, others = load_file(one.student / name), load_file(other.student / name)
    if tensors.keys() != others.keys():
        return [*found, "names of tensors"]
    return found + [key for key in tensors if not tensors[key].equal(others[key])]
