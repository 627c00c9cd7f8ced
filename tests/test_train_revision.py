"""A base of the Hub at one of its revisions, from the recipe to what is left of the training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfinstruct.core.errors import UserError
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.evaluate import evaluate
from selfinstruct.stages.report import write_report
from selfinstruct.stages.train import plan_student, read_summary, train_student
from tests.tiny_student import make_base, make_run, rows

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The Hub's cache with two commits of acme/tiny, of which v1 is the older and main the newer.

    The older one knows fewer positions.
    """
    repo = tmp_path / "hub" / "models--acme--tiny"
    make_base(repo / "snapshots" / NEW)
    shutil.copytree(repo / "snapshots" / NEW, repo / "snapshots" / OLD)
    config = repo / "snapshots" / OLD / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 128}))
    (repo / "refs").mkdir()
    (repo / "refs/v1").write_text(OLD)
    (repo / "refs/main").write_text(NEW)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repo


def make(folder: Path, revision: str | None) -> RunFolder:
    student = {"revision": revision, "max_steps": 1}
    return make_run(folder, "acme/tiny", test=rows()[:2], student=student, privacy="local")


def test_a_student_of_an_older_commit_names_it(cached: Path, tmp_path: Path) -> None:
    """Summary, adapter, cards and report say which commit it was; evaluation goes on with it."""
    run = make(tmp_path / "run", "v1")
    summary = train_student(run)
    assert (summary.base, summary.base_commit) == ("acme/tiny", OLD)
    adapter = json.loads((run.student / "adapter/adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("acme/tiny", OLD)
    merged = json.loads((run.student / "merged/config.json").read_text())
    assert merged["max_position_embeddings"] == 128
    card = (run.student / "adapter/README.md").read_text()
    assert f'from_pretrained("acme/tiny", revision="{OLD}")' in card
    assert f"| commit of the base | `{OLD}` |" in card
    assert "base_model: acme/tiny\n" in card
    (cached / "refs/v1").write_text(NEW)  # a tag that moves afterwards changes nothing
    shutil.rmtree(cached / "snapshots" / NEW)
    assert evaluate(run).records == 2
    page = write_report(run).read_text()
    assert f"acme/tiny@{OLD}" in page
    assert "student <b>acme/tiny@v1</b>" in page


def test_another_revision_is_another_training(cached: Path, tmp_path: Path) -> None:
    """Other files are trained anew; the commit that was trained on may be named at any time."""
    run = make(tmp_path / "run", None)
    first = train_student(run)
    assert first.base_commit == NEW

    def again(revision: str) -> bool:
        make(tmp_path / "run", revision)
        return train_student(run).fingerprint != first.fingerprint

    assert not again(NEW)
    assert not again("main")
    assert again(OLD)
    found = read_summary(run)
    assert found is not None
    assert found.base_commit == OLD


def test_a_teacher_has_a_revision_of_its_own(cached: Path, tmp_path: Path) -> None:
    """Its commit is kept with what it taught; another one's files are another training."""
    student = {
        "max_steps": 1, "merge": False,
        "distillation": {"teacher": "acme/tiny", "revision": "v1", "max_new_tokens": 2},
    }  # fmt: skip

    def make(revision: str) -> RunFolder:
        student["distillation"] |= {"revision": revision}  # type: ignore[operator]
        return make_run(tmp_path / "run", "acme/tiny", student=student, privacy="local")

    run = make("v1")
    summary = train_student(run)
    assert [stage.commit for stage in summary.later] == [OLD]
    assert f"(acme/tiny@{OLD})" in (run.student / "adapter/README.md").read_text()
    assert train_student(make(OLD)).fingerprint == summary.fingerprint
    assert train_student(make(NEW)).fingerprint != summary.fingerprint
    with pytest.raises(UserError, match=r"student\.distillation\.teacher: acme/tiny@v2: "):
        plan_student(make("v2"))


def test_the_plan_is_that_of_the_revision(cached: Path, tmp_path: Path) -> None:
    """What is looked at before the weights are the files of that commit."""
    (cached / "snapshots" / NEW / "config.json").write_text("{")
    assert plan_student(make(tmp_path / "run", "v1")).parameters > 0
