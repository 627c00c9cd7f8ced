"""When memory runs out: pairs in pieces, and several processes that agree before the first step."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.stages.train import train_student
from selfinstruct.steps.training import halving, preference
from selfinstruct.steps.training.adapters import add_adapter
from selfinstruct.steps.training.fitted import Fitted
from selfinstruct.steps.training.loading import load_tokenizer
from selfinstruct.steps.training.preference import Pair
from selfinstruct.steps.training.summary import TrainSummary, parse_summary
from selfinstruct.steps.training.trainer import fit
from tests.test_train_families import PLAN, load
from tests.tiny_student import make_base, make_run

pytestmark = [
    # PEFT reads a property that this transformers calls by another name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
# One process of two has room for two rows: above that it really asks for more than there is.
CRAMPED = """
import os, sys, torch
from transformers import LlamaModel
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import train_student
from selfinstruct.steps.training import runtime
runtime.has_bfloat16 = lambda: False
plain = LlamaModel.forward
def forward(self, input_ids=None, **rest):
    if os.environ["RANK"] == "1" and len(input_ids) > int(sys.argv[2]):
        torch.empty(1 << 60, dtype=torch.uint8)
    return plain(self, input_ids=input_ids, **rest)
LlamaModel.forward = forward
train_student(RunFolder(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def two(folder: Path, rows: int) -> subprocess.CompletedProcess[str]:
    """Train in two processes, one of which has memory for so many rows at once."""
    script = folder / "cramped.py"
    script.write_text(CRAMPED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(script), str(folder), str(rows)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def summary_of(folder: Path) -> TrainSummary:
    found = parse_summary(orjson.loads((folder / "student/training.json").read_bytes()))
    assert found is not None
    return found


@pytest.mark.usefixtures("float32_processor")
@pytest.mark.slow
def test_two_processes_agree_on_smaller_pieces(base: Path, tmp_path: Path) -> None:
    """One has no room for four rows: both go on with two, and the losses are those of one, in
    preference training too."""
    pairs = [
        {"prompt": f"Say {word}", "chosen": f"{word}.", "rejected": "No, I will not say that."}
        for word in ("warm", "stone", "otter", "five", "geese", "blue", "salt", "ships")
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_bytes(b"\n".join(map(orjson.dumps, pairs)))
    settings: dict[str, Any] = {
        "preference": {"data": str(data), "learning_rate": 1e-3, "epochs": 2.0},
        "epochs": 2, "merge": False, "batch_size": 8, "lora_dropout": 0.0,
    }  # fmt: skip
    alone = train_student(make_run(tmp_path / "one", base, student=settings))
    folder = tmp_path / "two"
    make_run(folder, base, student=settings | {"micro_batch_size": 4})
    done = two(folder, 2)
    assert done.returncode == 0, done.stderr
    together = summary_of(folder)
    assert together.actual.micro_batch_size == 2
    assert [note for note in together.notes if "with 4 examples per forward pass" in note]
    assert [note for note in together.notes if "preference: memory ran out with 2" in note]
    assert [step.loss for step in together.losses] == pytest.approx(
        [step.loss for step in alone.losses], rel=1e-4
    )
    (mine,), (expected,) = together.later, alone.later
    assert [step.loss for step in mine.losses] == pytest.approx(
        [step.loss for step in expected.losses], rel=5e-3
    )


@pytest.mark.slow
def test_two_processes_stop_together(base: Path, tmp_path: Path) -> None:
    """Where one example is too much for one of them, neither waits: both say what to lower."""
    folder = tmp_path / "two"
    make_run(folder, base, student={"max_steps": 2, "merge": False, "micro_batch_size": 2})
    done = two(folder, 0)
    assert done.returncode != 0
    assert "student.micro_batch_size or student.max_length" in done.stderr


def pairs(count: int) -> list[Pair]:
    rng = random.Random(3)

    def ids(least: int, most: int) -> list[int]:
        return [rng.randrange(4, 300) for _ in range(rng.randint(least, most))]

    return [Pair(str(at), ids(3, 9), ids(2, 8), ids(2, 8)) for at in range(count)]


def preferred(base: Path, work: Path, micro: int) -> Fitted:
    plan = msgspec.structs.replace(
        PLAN, batch_size=6, micro_batch_size=micro, epochs=2, learning_rate=1e-3
    )
    model = add_adapter(load(base, plan), plan)
    tokenizer = load_tokenizer(base, "tiny")
    build = preference.build(0.1)
    return fit(model, tokenizer, pairs(9), plan, work, "mark", lambda: 0.0, build=build)[1]


def test_preference_pairs_in_pieces(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory above two pairs: the losses are those of smaller ones, and it is said."""
    import torch
    from transformers import LlamaModel

    apart = preferred(base, tmp_path / "apart", 1)
    plain = LlamaModel.forward

    def forward(self: Any, input_ids: Any = None, **rest: Any) -> Any:
        if len(input_ids) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return plain(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    pieces = preferred(base, tmp_path / "pieces", 6)
    assert pieces.micro_batch_size == 2
    assert len(pieces.notes) == 2  # six pairs, then three
    assert [step.loss for step in pieces.losses] == pytest.approx(
        [step.loss for step in apart.losses], rel=1e-4
    )
    assert [step.grad_norm for step in pieces.losses] == pytest.approx(
        [step.grad_norm for step in apart.losses], rel=1e-3
    )


@given(st.integers(1, 9), st.integers(1, 12))
def test_a_pair_stays_together(count: int, pieces: int) -> None:
    """Each part has so many better answers, and after them the worse ones of the same pairs."""
    import torch

    whole = {"input_ids": torch.arange(2 * count), "use_cache": False}
    parts = halving.split_pairs(whole, pieces)
    assert len(parts) <= pieces
    better = [part["input_ids"][: len(part["input_ids"]) // 2] for part in parts]
    worse = [part["input_ids"][len(part["input_ids"]) // 2 :] for part in parts]
    assert torch.cat(better).tolist() == list(range(count))
    assert torch.cat(worse).tolist() == list(range(count, 2 * count))
