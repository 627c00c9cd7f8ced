"""While a student is trained: measuring, stopping, going on in smaller pieces, telling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import FolderError, MissingDependency, PrivacyError, UserError
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.stages.train import TrainSummary, plan_student, train_student
from selfinstruct.steps.training import halving
from selfinstruct.steps.training.held_out import Measured, best_of, is_over
from selfinstruct.steps.training.progress import (
    CORRECTED_AFTER,
    LossGuard,
    TrainProgress,
    corrected_seconds,
)
from selfinstruct.steps.training.trackers import check_trackers
from tests.tiny_student import make_base, make_run, rows

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

MEASURING = {"epochs": 10, "batch_size": 4, "eval_steps": 3, "merge": False, "save_steps": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


# -- held-out records ------------------------------------------------------------------------------


class Pair(msgspec.Struct):
    """The same training with and without measuring."""

    plain: TrainSummary
    measured: TrainSummary
    folder: RunFolder
    told: list[TrainProgress]


@pytest.fixture(scope="module")
def pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Sixteen epochs over seven records, with dropout; another is held out, and gets worse."""
    settings = MEASURING | {"lora_dropout": 0.1, "epochs": 16}
    data = {"train": rows()[:7], "test": rows()[7:]}
    unmeasured = settings | {"eval_steps": None}
    plain = make_run(tmp_path_factory.mktemp("plain"), base, student=unmeasured, **data)
    folder = make_run(tmp_path_factory.mktemp("measured"), base, student=settings, **data)
    told: list[TrainProgress] = []
    return Pair(train_student(plain), train_student(folder, on_progress=told.append), folder, told)


def test_measuring_changes_nothing_that_is_learned(pair: Pair) -> None:
    """The losses of every step are those of a training that was not measured, dropout and all."""
    assert [one.loss for one in pair.measured.losses] == [one.loss for one in pair.plain.losses]
    assert pair.plain.held_out == []
    assert pair.plain.best_step is None


def test_each_measurement_has_a_loss_and_answers(pair: Pair) -> None:
    """Every third step and the last are measured; training.json has answers beside references."""
    steps = pair.measured.steps
    assert [one.step for one in pair.measured.held_out] == [*range(3, steps, 3), steps]
    sample = pair.measured.held_out[0].samples[0]
    assert (sample.prompt, sample.reference) == ("Name the opposite\n\ncold", "Warm.")
    assert len({one.loss for one in pair.measured.held_out}) > 1
    told = {one.step: one for one in pair.told}
    assert told[2].held_out_loss is None
    assert told[4].held_out_loss == pair.measured.held_out[0].loss
    assert "held-out loss" in told[3].note
    assert told[4].note == ""


def test_the_best_weights_are_kept(pair: Pair) -> None:
    """The adapter is that of the least held-out loss, not the last, and the summary says so."""
    import torch
    from peft import PeftModel

    from selfinstruct.steps.training.format import StudentFormat
    from selfinstruct.steps.training.loading import load_model, load_tokenizer
    from selfinstruct.steps.training.measures import mean_loss

    best = min(pair.measured.held_out, key=lambda one: one.loss)
    assert pair.measured.best_step == best.step < pair.measured.steps
    assert any(f"step {best.step}'s" in note for note in pair.measured.notes)
    path = pair.folder.student / "adapter"
    base = pair.folder.recipe().student
    assert base is not None
    model = load_model(Path(base.base), "base", device="cpu", dtype=torch.float32)
    tokenizer = load_tokenizer(path, "student")
    examples = StudentFormat(tokenizer, "student").examples(rows()[7:], 96).kept
    model = PeftModel.from_pretrained(model, path)
    found = mean_loss(model, examples, pad_id=tokenizer.pad_token_id)
    assert found == pytest.approx(best.loss, rel=1e-5)


def test_training_stops_when_nothing_is_gained(base: Path, tmp_path: Path) -> None:
    """After two measurements without a better loss it ends, and says only what was trained."""
    settings = MEASURING | {"early_stopping_patience": 2, "epochs": 40}
    folder = make_run(tmp_path, base, train=rows()[:7], test=rows()[7:], student=settings)
    summary = train_student(folder)
    assert summary.best_step is not None
    assert summary.steps < 70
    late = [one for one in summary.held_out if one.step > summary.best_step]
    assert len(late) == 2
    assert summary.epochs == pytest.approx(summary.steps * 4 / 7, abs=0.01)
    assert summary.tokens == sum(one.tokens for one in summary.losses)


def test_measuring_without_held_out_records(base: Path, tmp_path: Path) -> None:
    """There is nothing to measure on, and the message says what to set."""
    folder = make_run(tmp_path, base, student=MEASURING)
    with pytest.raises(FolderError, match=r"no held-out records.*dataset\.held_out"):
        train_student(folder)


def test_held_out_prompts_that_leave_no_answer(base: Path, tmp_path: Path) -> None:
    """The length of the training records cuts every held-out answer away: said before training."""
    long = [row | {"instruction": "Say it again. " * 20} for row in rows()[7:]]
    folder = make_run(tmp_path, base, test=long, student=MEASURING)
    with pytest.raises(
        FolderError, match=r"every held-out prompt is as long as student\.max_length"
    ):
        train_student(folder)


def test_held_out_records_that_all_went_to_training(base: Path, tmp_path: Path) -> None:
    """Where near-duplicates left nothing held out, it says so, instead of asking for a share."""
    folder = make_run(tmp_path, base, student=MEASURING)
    write_json(folder.dataset / "dataset.json", {"moved_to_train": 16})
    with pytest.raises(FolderError, match="all 16 that were drawn are near-duplicates") as caught:
        train_student(folder)
    assert "a split named test" in str(caught.value)


def test_patience_needs_measurements() -> None:
    """A patience without eval_steps would never be asked, so the recipe refuses it."""
    with pytest.raises(ValueError, match="needs eval_steps"):
        StudentConfig(base="x", early_stopping_patience=2)


@given(st.lists(st.floats(0, 10), max_size=12), st.integers(1, 4))
def test_patience_counts_from_the_best(losses: list[float], patience: int) -> None:
    """It is over exactly when the best is `patience` measurements old."""
    measured = [Measured(step, loss, []) for step, loss in enumerate(losses, 1)]
    best = best_of(measured)
    if best is None:
        assert not is_over(measured, patience)
    else:
        assert best.loss == min(losses)
        assert is_over(measured, patience) == (len(losses) - best.step >= patience)
    assert not is_over(measured, None)


# -- memory runs out -------------------------------------------------------------------------------


@pytest.mark.usefixtures("float32_processor")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_step_is_done_again_in_pieces(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Out of memory above two rows: the same losses as with two from the start, and it is said."""
    import torch
    from transformers import LlamaModel

    settings = {"epochs": 3, "method": method, "merge": False, "batch_size": 8}
    apart = train_student(
        make_run(tmp_path / "apart", base, student=settings | {"micro_batch_size": 2})
    )
    plain = LlamaModel.forward
    refused: list[int] = []

    def forward(self: Any, input_ids: Any = None, **rest: Any) -> Any:
        if len(input_ids) > 2:
            refused.append(len(input_ids))
            raise torch.OutOfMemoryError("out of memory")
        return plain(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    told: list[TrainProgress] = []
    folder = make_run(tmp_path / "pieces", base, student=settings | {"micro_batch_size": 8})
    summary = train_student(folder, on_progress=told.append)
    assert refused == [8, 4]
    assert [one.loss for one in summary.losses] == pytest.approx(
        [one.loss for one in apart.losses], rel=1e-4
    )
    assert summary.actual.micro_batch_size == 2
    assert any("with 8 examples per forward pass at step 1" in note for note in summary.notes)
    assert "went on with 2" in told[0].note


def test_one_example_that_does_not_fit_is_told(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even one example is too much, the settings to lower are named."""
    import torch
    from transformers import LlamaModel

    def forward(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(LlamaModel, "forward", forward)
    with pytest.raises(UserError, match=r"ran out of memory.*student\.max_length"):
        train_student(make_run(tmp_path, base, student={"max_steps": 2}))


@given(st.integers(1, 9), st.integers(1, 12))
def test_pieces_are_the_whole(count: int, pieces: int) -> None:
    """Split and put together again, a micro-batch is what it was; what is no row is in each."""
    import torch

    whole = {"input_ids": torch.arange(count * 3).reshape(count, 3), "use_cache": False}
    parts = halving.split(whole, pieces)
    assert len(parts) <= pieces
    assert torch.cat([part["input_ids"] for part in parts]).equal(whole["input_ids"])
    assert all(part["use_cache"] is False for part in parts)


# -- what goes wrong -------------------------------------------------------------------------------


def test_divergence_is_told_from_noise() -> None:
    """A loss that stays far above its best has diverged; spikes and slow rises have not."""
    guard = LossGuard()
    assert not any(guard.diverged(2.0 - step / 100) for step in range(100))
    assert not any(guard.diverged(9.0 if step % 20 == 0 else 1.0) for step in range(200))
    seen = [guard.diverged(9.0) for _ in range(60)]
    assert seen[-1]
    assert not seen[25]


def test_a_diverging_training_stops_with_advice(base: Path, tmp_path: Path) -> None:
    """A learning rate far too high ends the run, and the message says what to lower."""
    settings = {"method": "full", "learning_rate": 2.0, "epochs": 60, "warmup_ratio": 0.0}
    folder = make_run(tmp_path, base, student=settings | {"scheduler": "constant"})
    with pytest.raises(UserError, match=r"(diverged|became).*student\.learning_rate"):
        train_student(folder)
    assert not (folder.student / "training.json").exists()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra to install is named, and nothing is imported to find out."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=rf"selfinstruct\[{name}\]"):
        check_trackers([name], local=False)


def test_trackers_keep_to_the_privacy_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under privacy: local one that would send is refused, and one that stays here is not."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.raises(PrivacyError, match="WANDB_MODE=offline"):
        check_trackers(["wandb"], local=True, environ={})
    with pytest.raises(PrivacyError, match="TRACKIO_SPACE_ID"):
        check_trackers(["trackio"], local=True, environ={"TRACKIO_SPACE_ID": "me/space"})
    check_trackers(
        ["tensorboard", "wandb", "trackio"], local=True, environ={"WANDB_MODE": "offline"}
    )
    check_trackers(["wandb"], local=False, environ={})


def test_a_tracker_is_told_of_each_step(base: Path, tmp_path: Path) -> None:
    """TensorBoard's files have one loss a step, under the run's folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    student = {"max_steps": 3, "merge": False, "report_to": ["tensorboard"]}
    folder = make_run(tmp_path, base, student=student)
    summary = train_student(folder)
    events = EventAccumulator(str(folder.student / "logs"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([one.loss for one in summary.losses])


# -- the plan beside what came ---------------------------------------------------------------------


def test_the_plan_is_kept_beside_what_came(pair: Pair) -> None:
    """training.json has the plan, the time corrected after twenty steps, and what was taken."""
    written = orjson.loads((pair.folder.student / "training.json").read_bytes())
    plan, actual = written["plan"], written["actual"]
    assert plan["steps"] == pair.measured.steps
    assert plan["tokens"] == pair.measured.tokens
    assert plan["padded_tokens"] == pair.measured.padded_tokens
    assert plan["trainable"] == pair.measured.trainable_params
    assert plan["parameters"] == pair.measured.total_params
    assert actual["micro_batch_size"] == plan["micro_batch_size"] == 2
    assert actual["seconds"] > 0
    assert actual["peak_bytes"] is None or actual["peak_bytes"] > 1 << 27
    assert (actual["corrected_seconds"] is None) == (pair.measured.steps < CORRECTED_AFTER)


def test_a_plan_changes_nothing(base: Path, tmp_path: Path) -> None:
    """It loads no weights: a base whose file of weights holds others is planned all the same."""
    import shutil

    import torch
    from safetensors.torch import save_file

    bare = Path(shutil.copytree(base, tmp_path / "bare"))
    save_file({"other": torch.zeros(1)}, bare / "model.safetensors")
    folder = make_run(tmp_path / "run", bare, student={"micro_batch_size": "auto"})
    before = sorted(path.relative_to(folder.path) for path in folder.path.rglob("*"))
    plan = plan_student(folder)
    assert plan.fits
    assert plan.steps == 6
    assert sorted(path.relative_to(folder.path) for path in folder.path.rglob("*")) == before


@given(st.lists(st.integers(1, 500), min_size=CORRECTED_AFTER, max_size=60))
def test_the_corrected_time_is_right_where_work_is_even(positions: list[int]) -> None:
    """Where each position takes the same, what is foreseen after twenty steps is what comes."""
    walls = [count * 0.01 for count in positions]
    found = corrected_seconds(walls[:CORRECTED_AFTER], positions)
    assert found == pytest.approx(sum(walls))
    assert corrected_seconds(walls[: CORRECTED_AFTER - 1], positions) is None
