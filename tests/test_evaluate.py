"""The evaluate stage, on a tiny random model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from selfinstruct.core.errors import FolderError
from selfinstruct.core.money import from_dollars
from selfinstruct.engine.accounts import bill
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.stages.evaluate import EvaluationSummary, evaluate
from selfinstruct.stages.train import train_student
from tests.tiny_student import make_base, make_run, rows

HEART = {"epochs": 40, "batch_size": 8, "micro_batch_size": 8, "scheduler": "constant"}
LORA = HEART | {"lora_rank": 32, "lora_alpha": 64, "merge": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A student that knows its records by heart, with some of them held out to measure that."""
    folder = make_run(
        tmp_path_factory.mktemp("run"),
        base,
        test=rows()[2:7],
        student=LORA | {"gpu_hour_price": "3.60"},
    )
    train_student(folder)
    return folder


@pytest.fixture(scope="module")
def measured(run: RunFolder) -> EvaluationSummary:
    return evaluate(run)


def test_a_student_that_learned_is_measured_so(measured: EvaluationSummary) -> None:
    """What was learned by heart has next to no loss and the reference's words."""
    assert measured.before.loss > 4
    assert measured.after.loss < 0.1
    assert measured.before.perplexity == pytest.approx(math.exp(measured.before.loss))
    assert measured.after.rouge_l == 1.0
    assert measured.before.rouge_l is not None
    assert measured.before.rouge_l < 0.5


def test_samples_stand_side_by_side(measured: EvaluationSummary) -> None:
    """Each sample has its record, the reference and both answers."""
    assert [sample.id for sample in measured.samples] == ["r2", "r4"]
    first = measured.samples[0]
    assert (first.instruction, first.reference) == (
        "Say what a harbour is for",
        "Ships rest there.",
    )
    assert first.after == first.reference
    assert first.before != first.after


def test_what_is_written_is_what_is_returned(run: RunFolder, measured: EvaluationSummary) -> None:
    """evaluation.json holds the summary, and the hours are billed at the recipe's price."""
    written = orjson.loads((run.evaluation / "evaluation.json").read_bytes())
    assert written == msgspec.to_builtins(measured)
    assert written["records"] == 5
    with Ledger.read(run.db_path) as ledger:
        (line,) = [line for line in bill(ledger) if line.stage == "evaluate"]
    assert line.cost == pytest.approx(from_dollars("3.60") * line.quantity, abs=1)


def test_nothing_is_measured_twice(run: RunFolder, measured: EvaluationSummary) -> None:
    """Unchanged inputs give the summary at once; force measures again, to the same numbers."""
    told: list[Any] = []
    assert evaluate(run, on_progress=lambda *args: told.append(args)) == measured
    assert not told
    again = evaluate(run, force=True, on_progress=lambda *args: told.append(args))
    assert (again.before, again.after) == (measured.before, measured.after)
    assert told == [
        ("loss before", 1, 1),
        ("answers before", 2, 2),
        ("loss after", 1, 1),
        ("answers after", 2, 2),
    ]


def test_other_settings_measure_again(run: RunFolder, measured: EvaluationSummary) -> None:
    """Fewer records and no samples: another measurement, with no ROUGE-L to tell."""
    recipe = run.recipe()
    few = recipe.evaluate.model_copy(update={"samples": 0, "max_records": 2})
    run.save_recipe(recipe.model_copy(update={"evaluate": few}))
    try:
        summary = evaluate(run)
    finally:
        run.save_recipe(recipe)
    assert (summary.records, summary.samples) == (2, [])
    assert summary.after.rouge_l is None
    assert summary.fingerprint != measured.fingerprint


def test_a_student_without_adapter(base: Path, tmp_path: Path) -> None:
    """A fully trained student is compared with the base it came from."""
    folder = make_run(tmp_path, base, test=rows()[:3], student=HEART | {"method": "full"})
    train_student(folder)
    summary = evaluate(folder)
    assert summary.before.loss > 4
    assert summary.after.loss < 0.1


def test_teacher_and_base_of_one_file(base: Path, tmp_path: Path) -> None:
    """A local teacher that serves the base itself is told: nobody better taught this student."""
    student = {"max_steps": 1, "merge": False}
    folder = make_run(
        tmp_path,
        base,
        test=rows()[:2],
        student=student,
        teacher={"kind": "local", "model": f"{base}/../{base.name}"},
    )
    train_student(folder)
    assert evaluate(folder).same_weights_as_teacher
    card = (folder.student / "adapter/README.md").read_text()
    assert "Teacher and base are the same model" in card


def test_what_is_missing_is_named(base: Path, tmp_path: Path) -> None:
    """Without a student, or without held-out records, the message says what to run."""
    folder = make_run(tmp_path, base, student={"max_steps": 1, "merge": False})
    with pytest.raises(FolderError, match="selfinstruct train-student"):
        evaluate(folder)
    train_student(folder)
    with pytest.raises(FolderError, match=r"dataset\.held_out"):
        evaluate(folder)


def test_long_prompts_are_left_out_aloud(base: Path, tmp_path: Path) -> None:
    """A held-out prompt without room for an answer is counted; if all are, it is an error."""
    long = rows([("Say " * 99, "", "No room.")])[0] | {"id": "long"}
    student = {"max_steps": 1, "merge": False}
    folder = make_run(tmp_path, base, test=[*rows()[:2], long], student=student)
    train_student(folder)
    summary = evaluate(folder)
    assert summary.records == 2
    assert "long" in summary.notes[0]
    folder = make_run(tmp_path, base, test=[long], student=student)
    with pytest.raises(FolderError, match=r"student\.max_length"):
        evaluate(folder)
