"""Where a training is refused, the run folder is as it was before the command."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from selfinstruct.api import Run
from selfinstruct.cli.as_it_was import as_it_was
from selfinstruct.cli.main import cli
from selfinstruct.core.errors import FolderError, SelfInstructError, UserError
from selfinstruct.engine.folder import RunFolder
from tests.test_given import TASKS, write
from tests.tiny_student import make_base

# Too short for any answer, which shows once records and base were read.
TOO_SHORT = ["--set", "student.max_length=16", "--set", "student.device=cpu"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def refusal(folder: Path, *options: str) -> str:
    """What `train-student` is refused with."""
    found = CliRunner().invoke(cli, ["train-student", str(folder), *options])
    assert isinstance(found.exception, UserError), found.output
    return str(found.exception)


def files(folder: Path) -> dict[Path, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".db"]
    return {path: path.read_bytes() for path in found}


@pytest.mark.parametrize("where", ["run", "outputs/new/run"])
def test_a_refused_training_leaves_no_folder(tmp_path: Path, base: Path, where: str) -> None:
    """A mistake in the options, the base or the records costs a line, and no file stays."""
    data = ["--data", str(write(tmp_path / "claims.jsonl", TASKS))]
    folder = tmp_path / where
    assert "no base is named for the student" in refusal(folder, *data)
    assert "student.base: nowhere" in refusal(folder, *data, "--base", "nowhere")
    whole = [*data, "--base", str(base), *TOO_SHORT]
    for more in ([], ["--plan"], ["--processes", "2", "--set", "student.batch_size=3"]):
        refusal(folder, *whole, *more)
    assert [path.name for path in tmp_path.iterdir()] == ["claims.jsonl"]


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    """An empty one is empty again."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    (tmp_path / "run").mkdir()
    refusal(tmp_path / "run", "--data", str(data), "--base", "nowhere")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_was_there_keeps_recipe_and_dataset(tmp_path: Path, base: Path) -> None:
    """Settings and data that are refused take the place of nothing."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    settings = [f"student.base={base}", "student.device=cpu"]
    run = Run.from_data(data, tmp_path / "run", overrides=settings)
    run.write_dataset()
    before, ids = files(run.folder.path), [seed.id for seed in run.seeds()]
    other = write(tmp_path / "others.jsonl", TASKS[:3])
    for options in (["--base", "nowhere"], TOO_SHORT, ["--data", str(other), *TOO_SHORT]):
        refusal(run.folder.path, *options)
        assert files(run.folder.path) == before
    assert [seed.id for seed in run.seeds()] == ids


def begin(data: Path, folder: Path, error: SelfInstructError, *, trained: bool = False) -> None:
    """A command that makes a run and ends in `error`."""
    with as_it_was(folder):
        run = Run.from_data(data, folder)
        if trained:
            (run.folder.student / "checkpoints").mkdir(parents=True)
        raise error


def test_a_training_that_has_begun_is_kept(tmp_path: Path) -> None:
    """What was trained before the mistake showed is gone on with; a fault of ours is left too."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    with pytest.raises(UserError, match="out of memory"):
        begin(data, tmp_path / "one", UserError("out of memory"), trained=True)
    with pytest.raises(SelfInstructError, match="ours"):
        begin(data, tmp_path / "two", SelfInstructError("ours"))
    for name in ("one", "two"):
        assert (tmp_path / name / "recipe.yaml").is_file()


def test_the_folder_of_another_process_is_left(tmp_path: Path) -> None:
    """What fails because the folder is in use takes nothing away."""
    folder = RunFolder(tmp_path / "run")
    with contextlib.ExitStack() as held, pytest.raises(FolderError, match="in use"):
        with_the_lock(folder, held)
    assert folder.recipe_path.is_file()


def with_the_lock(folder: RunFolder, held: contextlib.ExitStack) -> None:
    with as_it_was(folder.path):
        held.enter_context(folder.lock())
        folder.recipe_path.write_text("another's")
        folder.lock().__enter__()
