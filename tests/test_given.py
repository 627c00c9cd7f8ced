"""A student on data that is there already: the dataset folder, the stages after it, the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import selfinstruct
from selfinstruct.api import Run
from selfinstruct.cli.main import cli
from selfinstruct.core.errors import FolderError, RecipeError, SeedError, UserError
from selfinstruct.stages.dataset import export
from selfinstruct.steps.tables import read_parquet
from tests.tiny_student import make_base

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NOUNS = ["apple", "bridge", "candle", "desert", "engine", "forest", "guitar", "harbour", "island",
         "jacket", "kettle", "ladder", "magnet", "needle", "orchid", "pillow"]  # fmt: skip
VERBS = ["peel", "cross", "light", "map", "start", "plant", "tune", "enter", "visit", "mend",
         "boil", "climb", "test", "thread", "water", "wash"]  # fmt: skip
TASKS = [
    {"instruction": f"{verb.title()} one {noun}.", "output": f"A {noun} is a thing to {verb}."}
    for verb, noun in zip(VERBS, NOUNS, strict=True)
]


def talk(verb: str, noun: str) -> dict[str, Any]:
    turns = ["user", "assistant", "user", "assistant"]
    texts = [f"Name a {noun}.", f"This {noun}.", f"Why {verb}?", "It helps."]
    return {"messages": [{"role": r, "content": t} for r, t in zip(turns, texts, strict=True)]}


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def given_run(tmp_path: Path, rows: list[Any], base: Path | str = "some-base") -> Run:
    data = write(tmp_path / "claims.jsonl", rows)
    settings = [f"student.base={base}", "student.max_steps=1", "evaluate.max_new_tokens=4"]
    return Run.from_data(data, tmp_path / "my run", overrides=settings)


def test_the_data_is_the_dataset(tmp_path: Path) -> None:
    """Every whole row is in one of two splits; faulty ones are counted and named."""
    run = given_run(tmp_path, [*TASKS, {"instruction": "Add.", "output": ""}])
    made = run.write_dataset()
    assert run.recipe.name == "my-run"
    assert (made.train + made.held_out, made.faulty) == (len(TASKS), 1)
    assert made.held_out >= 1
    assert made.faults[0].startswith(f"{tmp_path / 'claims.jsonl'}:17:")
    rows = list(read_parquet(run.folder.dataset / "data" / "train-00000-of-00001.parquet"))
    assert {row["source"] for row in rows} == {"given"}
    assert "messages" not in rows[0]
    alpaca = json.loads((run.folder.dataset / "alpaca.json").read_text())
    assert len(alpaca) == made.train
    card = (run.folder.dataset / "README.md").read_text()
    assert "1 rows were no whole records" in card
    assert "synthetic" not in card


def test_it_is_written_once_and_anew_when_the_data_changes(tmp_path: Path) -> None:
    """An unchanged dataset stays as it is; another row makes another."""
    run = given_run(tmp_path, TASKS)
    first = run.write_dataset()
    inode = run.folder.dataset.stat().st_ino
    assert run.write_dataset() == first
    assert run.folder.dataset.stat().st_ino == inode
    write(tmp_path / "claims.jsonl", TASKS[1:])
    assert run.write_dataset().fingerprint != first.fingerprint


def test_a_split_of_its_own_is_held_out(tmp_path: Path) -> None:
    """Data with a split for testing is measured on that, and on nothing else."""
    write(tmp_path / "set" / "train.jsonl", TASKS[:10])
    write(tmp_path / "set" / "test.jsonl", TASKS[10:])
    run = Run.from_data(tmp_path / "set", tmp_path / "run")
    made = run.write_dataset()
    assert (made.train, made.held_out) == (10, 6)


def test_conversations_are_learned_and_measured_whole(tmp_path: Path, base: Path) -> None:
    """All turns reach training; what is measured is the last answer after all that came before."""
    talks = [talk(verb, noun) for verb, noun in zip(VERBS, NOUNS, strict=True)]
    run = given_run(tmp_path, talks, base)
    run.configure("dataset.held_out=0.3", "evaluate.samples=1")
    assert run.write_dataset().held_out
    shown = run.shown_masks(1)[0]
    learned = "".join(piece.text for piece in shown.pieces if piece.kind == "learned")
    assert "It helps." in learned
    assert "This " in learned
    assert "Name a" not in learned
    run.train_student()
    sample = run.evaluate().samples[0]
    assert sample.reference == "It helps."
    with pytest.raises(UserError, match="several turns do not fit alpaca"):
        export(run.folder, "alpaca", tmp_path / "out.json")
    assert export(run.folder, "sharegpt", tmp_path / "out.json") == run.write_dataset().train
    longest = max(json.loads((tmp_path / "out.json").read_text()), key=lambda row: len(str(row)))
    assert len(longest["conversations"]) == 4
    report = run.report().read_text("utf-8")
    assert "The records were given" in report
    assert "written by the teacher" not in report


def test_private_data_is_not_published(tmp_path: Path) -> None:
    """A source marked private keeps the whole dataset from leaving, and of a student it is said."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    recipe = {
        "name": "claims",
        "seeds": [{"path": str(data), "private": True}],
        "publish": {"dataset_repo": "acme/claims"},
    }
    run = Run.from_recipe(recipe, output=tmp_path / "run")
    assert run.write_dataset().private_seeds == len(TASKS)
    plan = run.plan_publish(what="dataset")
    assert any("private" in refusal for refusal in plan.repos[0].refusals)
    (run.folder.student / "merged").mkdir(parents=True)
    (run.folder.student / "training.json").write_text("{}")
    student = run.plan_publish(what="student").repos[0]
    assert any(f"trained on {len(TASKS)} private examples" in note for note in student.notes)


def test_every_turn_of_a_private_conversation_is_looked_for(tmp_path: Path) -> None:
    """Not the last question and answer alone: a template may say what the first message did."""
    secret = "Our house code for water damage in a rented flat is blue heron seven"
    said = {"messages": [{"role": "system", "content": f"Note: {secret}."}]}
    said["messages"] += talk("boil", "kettle")["messages"]
    data = write(tmp_path / "claims.jsonl", [*TASKS, said])
    recipe = {
        "name": "claims",
        "seeds": [{"path": str(data), "private": True}],
        "publish": {"model_repo": "acme/claims"},
    }
    run = Run.from_recipe(recipe, output=tmp_path / "run")
    run.write_dataset()
    merged = run.folder.student / "merged"
    merged.mkdir(parents=True)
    (run.folder.student / "training.json").write_text("{}")
    (merged / "chat_template.jinja").write_text("{{ '" + secret.upper() + "' }}")
    found = run.plan_publish(what="student").repos[0].findings
    assert [(one.file, one.kind) for one in found] == [
        ("chat_template.jinja", "text of private seed claims-17")
    ]


def test_a_run_with_a_teacher_is_not_taken_over(tmp_path: Path) -> None:
    """Data does not go into a folder whose records were paid for."""
    write(tmp_path / "claims.jsonl", TASKS)
    recipe = {
        "name": "mine",
        "seeds": [str(tmp_path / "claims.jsonl")],
        "teacher": {"kind": "scripted", "model": "replies.jsonl"},
    }
    Run.from_recipe(recipe, output=tmp_path / "run")
    with pytest.raises(FolderError, match="is a run with a teacher"):
        Run.from_data(tmp_path / "claims.jsonl", tmp_path / "run")


def test_a_folder_of_other_things_is_not_taken_over(tmp_path: Path) -> None:
    """What lies in a folder that is no run stays, a folder `dataset` of one's own above all."""
    data = write(tmp_path / "project" / "dataset" / "claims.jsonl", TASKS)
    with pytest.raises(FolderError, match=r"holds other files.*give a new folder"):
        Run.from_data(data, tmp_path / "project")
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["dataset"]
    assert data.is_file()
    with pytest.raises(FolderError, match="is a file"):
        Run.from_data(data, data)


def test_several_files_are_one_dataset(tmp_path: Path) -> None:
    """Each `--data` counts, and a limit that one was given holds on."""
    first = write(tmp_path / "first.jsonl", TASKS[:8])
    second = write(tmp_path / "second.jsonl", TASKS[8:])
    run = Run.from_data(
        [first, second], tmp_path / "run", overrides=["student.base=b", "seeds.1.limit=5"]
    )
    made = run.write_dataset()
    assert made.train + made.held_out == 8 + 5
    again = Run.from_data([second, first], tmp_path / "run").recipe.seeds
    assert [(one.path, one.limit) for one in again] == [(str(second), 5), (str(first), None)]
    with pytest.raises(SeedError, match=r"third\.jsonl: no such file"):
        Run.from_data([first, tmp_path / "third.jsonl"], tmp_path / "other")


def test_too_few_records_to_hold_one_out_are_told(tmp_path: Path, base: Path) -> None:
    """When training, and when there is nothing to measure on."""
    data = ("--data", str(write(tmp_path / "a.jsonl", TASKS[:2])))
    more = ("--data", str(write(tmp_path / "one.jsonl", TASKS[2:4])))
    settings = ("--base", str(base), "--set", "student.max_steps=1")
    done = CliRunner().invoke(
        cli, ["train-student", str(tmp_path / "run"), *data, *more, *settings]
    )
    assert done.exit_code == 0, done.output
    assert "no record is held out, so there is nothing to evaluate on" in done.stderr
    with pytest.raises(FolderError, match="of fewer than 10 records, 4 here, there may be none"):
        Run(tmp_path / "run").evaluate()


def test_the_data_given_again_keep_the_settings(tmp_path: Path) -> None:
    """A run on data that is named once more has the base and options that it had."""
    run = given_run(tmp_path, TASKS)
    again = Run.from_data(tmp_path / "claims.jsonl", run.folder.path)
    assert again.recipe == run.recipe
    one = ["student.epochs=1"]
    changed = Run.from_data(tmp_path / "claims.jsonl", run.folder.path, overrides=one)
    assert changed.recipe.student is not None
    assert (changed.recipe.student.base, changed.recipe.student.epochs) == ("some-base", 1)


def test_what_a_run_writes_is_no_data_of_its_own(tmp_path: Path) -> None:
    """A dataset made of itself would shrink each time, by what is held out."""
    run = given_run(tmp_path, TASKS)
    made = run.write_dataset()
    for own in (run.folder.dataset, run.folder.dataset / "train.jsonl"):
        with pytest.raises(FolderError, match="was written by this run"):
            Run.from_data(own, run.folder.path)
    assert run.write_dataset() == made
    other = Run.from_data(run.folder.dataset, tmp_path / "other").write_dataset()
    assert (other.train, other.held_out) == (made.train, made.held_out)


def test_private_sources_stay_private_under_other_data(tmp_path: Path) -> None:
    """A recipe for private examples is not loosened by the data that takes their place."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    recipe = {"name": "x", "seeds": [{"path": "a.jsonl", "private": True}]}
    run = Run.from_data(data, tmp_path / "run", recipe)
    assert run.write_dataset().private_seeds == len(TASKS)
    opened = ["seeds.0.private=false"]
    assert (
        not Run.from_data(data, tmp_path / "run", recipe, overrides=opened).recipe.seeds[0].private
    )


def test_given_data_is_compared(tmp_path: Path) -> None:
    """Beside the file it was made of, the run has the same records."""
    run = given_run(tmp_path, TASKS)
    run.write_dataset()
    found = run.compare(tmp_path / "claims.jsonl")
    assert found.first.diversity == found.second.diversity
    assert found.first.diversity.records == len(TASKS)


def test_a_folder_of_other_files_is_no_place_for_a_run(tmp_path: Path) -> None:
    """Its dataset/ would be replaced; a run with a teacher may not take it over either."""
    other = write(tmp_path / "mine" / "dataset" / "data.jsonl", TASKS)
    recipe = {"name": "mine", "seeds": [str(other)]}
    with pytest.raises(FolderError, match="holds other files and no run"):
        Run.from_recipe(recipe, output=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["dataset"]


def test_without_a_teacher_nothing_is_generated(tmp_path: Path) -> None:
    """Generating says what is missing, and what can be done without."""
    run = given_run(tmp_path, TASKS)
    for stage in (run.generate, run.refilter):
        with pytest.raises(RecipeError, match=r"names no teacher.*train-student"):
            stage()


def test_data_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    """A misspelt path is the error, and nothing was made."""
    with pytest.raises(SeedError, match="no such file"):
        Run.from_data(tmp_path / "clams.jsonl", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_others_gives_the_settings(tmp_path: Path) -> None:
    """With a recipe, all but its seeds and its teacher counts."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    run = Run.from_data(data, tmp_path / "run", "recipes/llama-3.1-8b-qlora.yaml")
    recipe = run.recipe
    assert recipe.teacher is None
    assert [source.path for source in recipe.seeds] == [str(data)]
    assert recipe.student is not None
    assert recipe.student.method == "qlora"


def test_the_command_makes_the_run_and_goes_on(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line trains on a file; given again, it finds everything done."""
    write(tmp_path / "claims.jsonl", [*TASKS, {"instruction": "Add.", "output": ""}])

    monkeypatch.chdir(tmp_path)

    def command(*options: str) -> Result:
        return CliRunner().invoke(cli, ["train-student", "run", *options])

    whole = ("--data", "claims.jsonl", "--base", str(base), "--set", "student.max_steps=1")
    first = command(*whole)
    assert first.exit_code == 0, first.stderr
    assert f'left out: {tmp_path}/claims.jsonl:17: field "output" is empty' in first.stderr
    made = (tmp_path / "run" / "student" / "training.json").read_bytes()
    assert command(*whole).exit_code == 0
    assert (tmp_path / "run" / "student" / "training.json").read_bytes() == made
    refused = command("--recipe", "x.yaml")
    assert isinstance(refused.exception, UserError)
    assert "--recipe goes with --data" in str(refused.exception)


def test_paths_hold_from_any_folder(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and base are stored as whole paths: the stages and the same command find them again."""
    data = write(tmp_path / "data" / "claims.jsonl", TASKS)
    for folder in ("models", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "models" / "tiny").symlink_to(base)

    def command(name: str, *options: str) -> Result:
        found = CliRunner().invoke(cli, [name, *options])
        assert found.exit_code == 0, found.output
        return found

    monkeypatch.chdir(tmp_path)
    whole = ("--data", "data/claims.jsonl", "--base", "models/tiny")
    command("train-student", "run", *whole, "--set", "student.max_steps=1")
    recipe = Run("run").recipe
    assert recipe.student is not None
    assert [one.path for one in recipe.seeds] == [str(data)]
    assert recipe.student.base == str(tmp_path / "models" / "tiny")
    made = (tmp_path / "run" / "student" / "training.json").read_bytes()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ("--data", "../data/claims.jsonl", "--base", "../models/tiny")
    command("train-student", "../run", "--plan")
    command("train-student", "../run", *again, "--plan")
    command("train-student", "../run", *again)
    assert (tmp_path / "run" / "student" / "training.json").read_bytes() == made
    command("evaluate", "../run")


def test_a_project_that_was_moved_trains_nothing_anew(tmp_path: Path, base: Path) -> None:
    """Data and base are given where they are now; until then, what needs the base says so."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(base, old / "tiny")
    data = write(old / "claims.jsonl", TASKS)
    settings = [f"student.base={old / 'tiny'}", "student.max_steps=1"]
    run = Run.from_data(data, old / "run", overrides=settings)
    run.write_dataset()
    made = run.train_student()
    old.rename(new)
    with pytest.raises(UserError, match="train-student RUN --base MODEL takes it from there"):
        Run(new / "run").evaluate()
    moved = Run.from_data(
        new / "claims.jsonl", new / "run", overrides=[f"student.base={new / 'tiny'}"]
    )
    moved.write_dataset()
    again = moved.train_student()
    assert (again.base, again.seconds) == (str(new / "tiny"), made.seconds)
    assert moved.evaluate().records


def test_the_package_offers_it(tmp_path: Path) -> None:
    """`selfinstruct.Run.from_data` is the interface from Python."""
    data = write(tmp_path / "claims.jsonl", TASKS)
    run = selfinstruct.Run.from_data(data, tmp_path / "run")
    assert run.write_dataset().train + run.write_dataset().held_out == len(TASKS)
