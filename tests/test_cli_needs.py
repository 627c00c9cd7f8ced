"""What a recipe needs is told before a folder is made and before a call is paid for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from selfinstruct.cli.main import cli
from selfinstruct.core.errors import DocumentError, MissingDependency, UserError
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.ahead import look_ahead
from tests.runs import recipe
from tests.tiny_student import make_base


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a package be missing."""
    found = importlib.util.find_spec

    def hide(hidden: str) -> None:
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: None if name == hidden else found(name, *more),
        )

    return hide


def refusal(folder: Path, *command: str, **changes: Any) -> tuple[BaseException | None, str]:
    """What a command on a recipe is refused with, and all that it printed."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(folder, "http://127.0.0.1:9") | changes), "utf-8")
    output = ["-o", str(folder / "out")]
    result = CliRunner().invoke(cli, [command[0], str(path), *output, *command[1:]])
    assert not (folder / "out").exists()
    return result.exception, result.output


@pytest.mark.parametrize("command", [["generate"], ["run"], ["estimate", "--pilot", "3"]])
def test_a_teachers_package_is_looked_for_before_the_folder_is_made(
    tmp_path: Path, without: Any, command: list[str]
) -> None:
    """Nothing is written and nothing is said but the one line."""
    without("openai")
    teacher = {"kind": "openai", "model": "gpt-4.1-mini"}
    error, said = refusal(tmp_path, *command, teacher=teacher)
    assert isinstance(error, MissingDependency)
    assert "pip install 'selfinstruct[openai]'" in str(error)
    assert said == ""


@pytest.mark.parametrize("command", [["generate"], ["run"], ["estimate", "--pilot", "3"]])
def test_documents_are_looked_for_before_the_folder_is_made(
    tmp_path: Path, without: Any, command: list[str]
) -> None:
    """That they are there, by the nearest name, and the package that reads them."""
    shelf = tmp_path / "handbook"
    shelf.mkdir()
    (shelf / "terms.pdf").write_bytes(b"%PDF")
    asks = {"generate": {"target": 1}}
    error, _ = refusal(tmp_path, *command, documents=str(tmp_path / "handbok"), **asks)
    assert isinstance(error, DocumentError)
    assert str(error).endswith(f"no such file or folder; did you mean {shelf}?")
    without("pypdfium2")
    error, said = refusal(tmp_path, *command, documents=str(shelf), **asks)
    assert isinstance(error, MissingDependency)
    assert "pip install 'selfinstruct[documents]'" in str(error)
    assert said == ""


def test_run_looks_for_the_base_before_it_generates(tmp_path: Path) -> None:
    """A base that is not there is not found an hour later."""
    error, _ = refusal(tmp_path, "run", student={"base": "nowhere"})
    assert isinstance(error, UserError)
    assert "student.base: nowhere: neither a model folder" in str(error)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "nowhere.gguf"}, r"student\.base: nowhere\.gguf: no such GGUF file"),
        ({"base": "empty"}, r"student\.base: empty: holds no config\.json"),
        ({"base": "acme/none"}, r"student\.base: acme/none: .* may not be asked"),
        ({"distillation": {"teacher": "nowhere"}}, r"student\.distillation\.teacher: nowhere: "),
        ({"preference": {"data": "pairs.jsonl"}}, r"pairs\.jsonl: no such file"),
        ({"conversations": "talks.jsonl"}, r"talks\.jsonl: no such file"),
        ({"chat_template": "own.jinja"}, r"own\.jinja: cannot be read"),
    ],
)
def test_what_is_not_there_is_told_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    """Models and files that the training will want are looked for by name alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    make_base(tmp_path / "base")
    config = StudentConfig.model_validate({"base": "base"} | settings)
    with pytest.raises(UserError, match=message):
        look_ahead(config, Policy(local=True))


def test_what_fetching_will_bring_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub id is asked for when it is needed, and a shipped name is converted then."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    look_ahead(StudentConfig(base="acme/none"), Policy())
    look_ahead(StudentConfig(base="smollm2-135m-instruct"), Policy(local=True))


def test_packages_of_the_student_are_looked_for_ahead(without: Any) -> None:
    """QLoRA without bitsandbytes, and a tracker that is not there."""
    student = {"base": "smollm2-135m-instruct"}
    without("bitsandbytes")
    with pytest.raises(MissingDependency, match=r"student\.method=qlora"):
        look_ahead(StudentConfig.model_validate(student | {"method": "qlora"}), Policy())
    without("tensorboard")
    with pytest.raises(MissingDependency, match=r"student\.report_to: tensorboard"):
        look_ahead(StudentConfig.model_validate(student | {"report_to": ["tensorboard"]}), Policy())
