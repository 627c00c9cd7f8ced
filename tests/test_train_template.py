"""A chat template of the recipe's, from the file to what a student is used with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from selfinstruct.cli.main import cli
from selfinstruct.core.errors import UserError
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.evaluate import evaluate
from selfinstruct.stages.export_student import export_student
from selfinstruct.stages.train import shown_masks, train_student
from selfinstruct.steps.training.gguf_tokens import adds_bos
from selfinstruct.steps.training.loading import load_tokenizer
from tests.tiny_student import CHATML, RECORDS, make_base, make_run, make_tokenizer, rows

TURNS = [
    {"role": "user", "content": "Name the opposite of cold"},
    {"role": "assistant", "content": "Warm."},
    {"role": "user", "content": "And the plural of goose?"},
    {"role": "assistant", "content": "Geese."},
]

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base without a chat template, whose tokenizer puts <s> before text and ends with </s>."""
    return make_base(tmp_path_factory.mktemp("base"), chat=False)


def make(folder: Path, base: Path, template: str, **student: Any) -> RunFolder:
    """A run whose student's template is in the file own.jinja."""
    folder.mkdir(exist_ok=True)
    (folder / "own.jinja").write_text(template)
    settings = {"chat_template": str(folder / "own.jinja"), "max_steps": 1, "max_length": 128}
    return make_run(folder, base, test=rows()[:2], student=settings | student)


def test_a_student_keeps_the_template_it_was_trained_on(base: Path, tmp_path: Path) -> None:
    """Adapter, merged model, card and summary have it; measuring and exporting need no file."""
    run = make(tmp_path / "run", base, CHATML)
    summary = train_student(run)
    assert (summary.prompt_format, summary.chat_template) == ("chat", "own.jinja")
    assert summary.prompt.startswith("<|im_start|>user\n{instruction}")
    assert any("are written by own.jinja" in note for note in summary.notes)
    for part in ("adapter", "merged"):
        assert load_tokenizer(run.student / part, part).chat_template == CHATML
        assert "| chat template | `own.jinja`" in (run.student / part / "README.md").read_text()
    stops = json.loads((run.student / "merged/generation_config.json").read_text())["eos_token_id"]
    tokenizer = load_tokenizer(run.student / "merged", "student")
    assert tokenizer.convert_ids_to_tokens(stops) == ["<|im_end|>", "</s>"]
    (tmp_path / "run/own.jinja").unlink()
    assert evaluate(run).records == 2


def test_another_template_is_another_training(base: Path, tmp_path: Path) -> None:
    """What counts is the text; where it lies does not."""
    run = make(tmp_path / "run", base, CHATML)
    first = train_student(run).fingerprint
    (tmp_path / "moved.jinja").write_text(CHATML)
    make(tmp_path / "run", base, "", chat_template=str(tmp_path / "moved.jinja"))
    assert train_student(run).fingerprint == first
    make(tmp_path / "run", base, CHATML.replace("\n{{", " says {{"))
    assert train_student(run).fingerprint != first


def test_every_answer_is_learned_by_the_given_template(base: Path, tmp_path: Path) -> None:
    """A conversation stays in one piece, and --show-masks shows it without generation markers."""
    talks = tmp_path / "talks.jsonl"
    talks.write_text(json.dumps({"messages": TURNS}) + "\n")
    run = make(tmp_path / "run", base, CHATML, conversations=str(talks))
    shown = shown_masks(run, 100)[-1]
    learned = "".join(one.text for one in shown.pieces if one.kind.startswith("learned"))
    assert learned == "Warm.<|im_end|>Geese.<|im_end|>"
    assert "".join(one.text for one in shown.pieces).startswith("<|im_start|>user\nName the")


def test_the_command_shows_the_given_template(tmp_path: Path) -> None:
    """It stands in for a template that the base has."""
    own = CHATML.replace("\n{{ message['content'] }}", " says: {{ message['content'] }}")
    (tmp_path / "own.jinja").write_text(own)
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps({"instruction": i, "output": o}) + "\n" for i, _, o in RECORDS)
    )
    base = make_base(tmp_path / "base")
    asks = ["train-student", str(tmp_path / "run"), "--data", str(tmp_path / "data.jsonl")]
    asks += ["--base", str(base), "--set", f"student.chat_template={tmp_path}/own.jinja"]
    shown = CliRunner().invoke(cli, [*asks, "--show-masks", "1"])
    assert shown.exit_code == 0, shown.output
    assert "<|im_start|>user says: " in shown.output


async def test_a_file_and_a_modelfile_have_the_given_template(base: Path, tmp_path: Path) -> None:
    """llama.cpp writes the student's prompts by it, and puts no <s> where it has none."""
    template = CHATML.replace("{% for message", "{# turns #}{% for message") + "\n"
    run = make(tmp_path / "run", base, template, merge=False)
    notes = train_student(run).notes
    assert any("leaves out <s>" in note for note in notes)
    exported = await export_student(run, "f32", ollama=True)
    assert exported.parity.agreement == 1.0
    text = (run.student / "gguf/Modelfile").read_text()
    assert '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>' in text
    assert 'PARAMETER stop "<|im_end|>"' in text


def test_a_first_token_is_the_templates_to_write() -> None:
    """A tokenizer that puts one before text does so for a prompt only where the template does."""
    tokenizer = make_tokenizer(chat=False)
    assert adds_bos(tokenizer)
    tokenizer.chat_template = CHATML
    assert not adds_bos(tokenizer)
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    assert adds_bos(tokenizer)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("\n{% for m in messages %}", r"own\.jinja:2: not Jinja \(.*endfor.*mend it"),
        ("{{ messages[0]['content'] }}", "it leaves out the question or the answer; mend it"),
        ("", "is empty; write a template"),
        (" ", "it leaves out the question or the answer"),
        ("{{ raise_exception('no talk\nat all') }}", r"refuses the conversation \(no talk\); mend"),
        ("{% include 'other.jinja' %}", r"it refuses the conversation \(no loader"),
        ("{{ messages[0]['content'] + 1 }}", "it refuses the conversation"),
        (
            CHATML.replace("<|im_end|>", "<|eot_id|>"),
            r"ends an answer with <\|eot_id\|>, which is no token of .* \(<s>, </s>",
        ),
        (
            CHATML.replace("<|im_end|>", "<end_of_turn><|im_end|>"),
            "ends an answer with <end_of_turn>, which is no token",
        ),
    ],
)
def test_a_template_of_no_use_is_refused(
    base: Path, tmp_path: Path, template: str, message: str
) -> None:
    """One line names the file, what is wrong with it and what to do."""
    with pytest.raises(UserError, match=message) as caught:
        shown_masks(make(tmp_path / "run", base, template), 1)
    assert str(caught.value).startswith(f"student.chat_template: {tmp_path}/run/own.jinja")
    assert "\n" not in str(caught.value)


def test_marks_before_a_question_may_be_plain_text(base: Path, tmp_path: Path) -> None:
    """As Zephyr's are, which ends its answers with a token."""
    zephyr = CHATML.replace("<|im_start|>", "<|turn|>").replace("<|im_end|>", "{{ eos_token }}")
    shown = shown_masks(make(tmp_path / "run", base, zephyr), 1)[0]
    assert "<|turn|>" in "".join(piece.text for piece in shown.pieces)
    assert (shown.pieces[-1].text, shown.pieces[-1].kind) == ("</s>", "learned special")


def test_a_mark_at_the_files_beginning_is_no_part_of_it(base: Path, tmp_path: Path) -> None:
    """A byte order mark would stand in every prompt, unseen."""
    run = make(tmp_path / "run", base, "\ufeff" + CHATML)
    assert shown_masks(run, 1)[0].pieces[0].text == "<|im_start|>"


def test_a_file_that_is_no_text_is_refused(base: Path, tmp_path: Path) -> None:
    """So is a folder, or a file that is not there."""
    run = make(tmp_path / "run", base, "")
    (tmp_path / "run/own.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"own\.jinja: not UTF-8"):
        shown_masks(run, 1)
    run = make(tmp_path / "run", base, "", chat_template=str(tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        shown_masks(run, 1)
