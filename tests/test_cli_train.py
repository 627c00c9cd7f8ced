"""What `train-student` asks, says and keeps, on a tiny random model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from selfinstruct.api import Run
from selfinstruct.cli.main import cli
from selfinstruct.cli.training_panel import training_line, training_panel
from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.steps.training.progress import TrainProgress
from tests.test_given import TASKS, write
from tests.tiny_student import make_base

SETTINGS = ["student.max_steps=1", "student.merge=false", "student.device=cpu"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Run:
    """A run on data that is there, whose student is the tiny base."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    settings = [f"student.base={base}", *SETTINGS]
    return Run.from_data(data, tmp_path / "run", overrides=settings)


def command(run: Run, *options: str) -> Result:
    return CliRunner().invoke(cli, ["train-student", str(run.folder.path), *options])


@pytest.mark.parametrize("question", [["--plan"], ["--show-masks", "1"]])
def test_a_question_changes_no_setting(run: Run, question: list[str]) -> None:
    """What is set with --plan or --show-masks counts this once, and the recipe stays as it was."""
    before = run.folder.recipe_path.read_bytes()
    plain = command(run, *question)
    asked = command(
        run, *question, "--set", "student.method=full", "--set", "student.max_length=40"
    )
    assert (plain.exit_code, asked.exit_code) == (0, 0), asked.output
    assert plain.stdout != asked.stdout
    assert run.folder.recipe_path.read_bytes() == before


def test_a_question_about_another_base_names_that_one(run: Run, tmp_path: Path) -> None:
    """The plan is headed by the base it is about."""
    other = make_base(tmp_path / "another")
    shown = command(run, "--plan", "--set", f"student.base={other}").stdout
    assert str(other) in "".join(shown.split()), "a long path goes on in the next line, whole"


def test_a_base_is_its_name_as_it_stands(run: Run) -> None:
    """A folder may be called what YAML would read as something else."""
    refused = command(run, "--base", "a: 1", "--plan").exception
    assert isinstance(refused, UserError)
    assert "student.base: a: 1: neither a model folder" in str(refused)


@pytest.mark.parametrize("option", ["--data", "--base"])
def test_an_option_of_an_unset_variable_is_no_folder(run: Run, option: str) -> None:
    """`--data "$FILE"` without a FILE would be the folder that the command runs in."""
    data = run.recipe.seeds[0].path
    refused = command(run, "--data", data, option, "").exception
    assert isinstance(refused, UserError)
    assert "at least 1 character" in str(refused)


def test_a_question_takes_no_setting_of_the_dataset(run: Run) -> None:
    """The dataset would have to be written anew, which a question does not."""
    refused = command(run, "--plan", "--set", "dataset.held_out=0.5").exception
    assert isinstance(refused, RecipeError)
    assert "dataset.held_out=0.5: --plan and --show-masks change nothing" in str(refused)


def test_a_question_about_the_data_changes_no_setting(run: Run, tmp_path: Path) -> None:
    """With --data too: another base or recipe counts this once, other data are refused."""
    data = str(tmp_path / "claims.jsonl")
    before = run.folder.recipe_path.read_bytes()
    other = make_base(tmp_path / "another")
    recipe = tmp_path / "full.yaml"
    recipe.write_text("seeds: x.jsonl\nstudent: {base: some, method: full, device: cpu}\n")
    whole = ["--data", data, "--base", str(other), "--recipe", str(recipe)]
    asked = command(run, *whole, "--plan")
    assert asked.exit_code == 0, asked.output
    assert "method     full" in asked.stdout
    assert command(run, *whole, "--show-masks", "1").exit_code == 0
    write(tmp_path / "others.jsonl", TASKS)
    refused = command(run, "--data", str(tmp_path / "others.jsonl"), "--plan").exception
    assert isinstance(refused, UserError)
    assert "is on other data or has other settings" in str(refused)
    assert run.folder.recipe_path.read_bytes() == before


@pytest.mark.parametrize("options", ["--data x", "--base x", "--set seed=1", "--plan"])
def test_a_process_of_a_launcher_takes_no_option_for_all(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """Each of them would write the run; it is not ignored either."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = command(run, *options.split()).exception
    assert isinstance(refused, UserError)
    assert f"give {options.split()[0]} to one process first" in str(refused)


def test_questions_are_put_one_at_a_time(run: Run) -> None:
    """Of two, one would go unanswered."""
    refused = command(run, "--show-masks", "1", "--plan").exception
    assert isinstance(refused, UserError)
    assert str(refused) == "--plan and --show-masks are 2 questions: give one of them"


@pytest.mark.parametrize("options", [["--processes", "3"], ["--launch", "slurm", "--nodes", "5"]])
def test_a_batch_that_cannot_be_shared_is_told_before_the_start(
    run: Run, options: list[str]
) -> None:
    """Once, not by each process, and before a job is put into a queue."""
    refused = command(run, *options).exception
    assert isinstance(refused, RecipeError)
    assert "16 examples cannot be shared out evenly" in str(refused)
    assert not (run.folder.path / "launch").exists()


def test_what_several_processes_would_refuse_is_told_once(run: Run) -> None:
    """The base is looked for before they are started."""
    refused = command(run, "--processes", "2", "--set", "student.base=nowhere").exception
    assert isinstance(refused, UserError)
    assert "student.base: nowhere: neither a model folder" in str(refused)


def test_results_and_progress_go_to_different_places(run: Run) -> None:
    """Where the student is goes to standard output; steps, while it runs, to standard error."""
    run.write_dataset()
    done = command(run)
    assert done.exit_code == 0, done.output
    assert "step 1/1" in done.stderr
    assert "step 1/1" not in done.stdout
    assert done.stdout.splitlines()[-1] == f"student: {run.folder.student}"
    measured = CliRunner().invoke(cli, ["evaluate", str(run.folder.path)])
    assert measured.stdout.startswith("held-out records")


def test_lines_say_which_training_a_step_is_of() -> None:
    """Preference training counts its own steps; without its name they would seem to begin anew."""
    said: list[str] = []
    line = training_line(said.append)
    line(progress(note="x"))
    line(progress(note="x", stage="preference"))
    assert said[0].startswith("  step 3/8  loss 1.250  900 tokens/s")
    assert said[1].startswith("  preference step 3/8  loss")


def progress(**facts: Any) -> TrainProgress:
    known: dict[str, Any] = {"step": 3, "steps": 8, "loss": 1.25, "tokens_per_second": 900.0}
    return TrainProgress(**known, seconds=61.0, **facts)


def test_the_panel_speaks_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal is never blank while a large base is loaded; then the step takes its place."""
    screen = io.StringIO()
    monkeypatch.setattr(
        "selfinstruct.cli.common.console",
        lambda stderr: Console(file=screen, force_terminal=True, width=80),
    )
    with training_panel("poems", print, live=True) as told:
        pass
    assert "train-student poems" in screen.getvalue()
    assert "reading the records and loading the base" in screen.getvalue()
    screen.truncate(0)
    with training_panel("poems", print, live=True) as told:
        told(progress(held_out_loss=1.5, note="the best so far", stage="preference"))
    last = screen.getvalue()
    assert "train-student poems: preference" in last
    for part in ("of 8 steps", "loss 1.250", "held out 1.500", "900 tokens/s", "1:01 gone"):
        assert part in last
    assert "step 3: the best so far" in last
