"""Kill -9 at any moment: the same command ends with the same weights, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from selfinstruct.stages.train import read_summary
from tests.kills import STEPS, differences, finish, kill_often, make
from tests.tiny_student import make_base


# PEFT reads a property that this transformers calls by another name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize(("processes", "kills"), [(1, 2), (2, 1)])
def test_kills_leave_no_trace(tmp_path: Path, processes: int, kills: int) -> None:
    """Losses, held-out losses and the adapter are those of the training never stopped.

    `python -m benchmarks.kills` does it twenty times.
    """
    base = make_base(tmp_path / "base")
    whole, killed = make(tmp_path / "whole", base), make(tmp_path / "killed", base)
    finish(whole, processes)
    assert kill_often(killed, kills, processes, processes) == kills
    assert list((killed.student / "checkpoints").glob("checkpoint-*"))
    finish(killed, processes)
    assert differences(whole, killed) == []
    summary = read_summary(killed)
    assert summary is not None
    assert summary.steps == STEPS
    assert not (killed.student / "checkpoints").exists()
