"""Methods, adapters, the user's own data and what follows fine-tuning, through the train stage."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from selfinstruct.cli.masks import print_masks
from selfinstruct.core.errors import (
    FolderError,
    MissingDependency,
    RecipeError,
    SeedError,
    UserError,
)
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.evaluate import evaluate
from selfinstruct.stages.train import read_summary, shown_masks, train_student
from selfinstruct.steps.charts.student import _facts
from selfinstruct.steps.training.adapters import add_adapter, check_modules, trainable
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.lessons import auto_length
from selfinstruct.steps.training.loading import load_model, load_tokenizer
from selfinstruct.steps.training.masks import show
from selfinstruct.steps.training.summary import TrainSummary
from selfinstruct.steps.training.trainer import fit
from tests.families import make_family
from tests.kills import finish
from tests.test_train_families import METHODS, PLAN, saved, teach
from tests.tiny_student import make_base, make_run, make_tokenizer, rows

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CONVERSATION = [
    {"role": "user", "content": "Name the opposite of cold"},
    {"role": "assistant", "content": "Warm."},
    {"role": "user", "content": "And the plural of goose?"},
    {"role": "assistant", "content": "Geese."},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family("flan-t5", tmp_path_factory.mktemp("t5"))


def write(path: Path, *records: Any) -> str:
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return str(path)


def one_line(folder: RunFolder, kind: type[Exception]) -> str:
    with pytest.raises(kind) as error:
        train_student(folder)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# -- methods and families through the stage --------------------------------------------------------


def test_t5_from_records_to_its_measures(t5: Path, tmp_path: Path) -> None:
    """An encoder-decoder is trained, merged, reloaded and measured by the same recipe."""
    student = {"max_length": "auto", "epochs": 40, "learning_rate": 0.003, "batch_size": 8}
    folder = make_run(tmp_path, t5, test=rows()[:2], student=student)
    summary = train_student(folder)
    assert summary.prompt_format == "alpaca"
    assert summary.losses[-1].loss < summary.losses[0].loss / 10
    settings = orjson.loads((folder.student / "merged/generation_config.json").read_bytes())
    assert (settings["decoder_start_token_id"], settings["eos_token_id"]) == (0, 1)
    measured = evaluate(folder)
    assert measured.after.loss < measured.before.loss / 5
    assert any(sample.after == sample.reference for sample in measured.samples)


def test_t5_learns_the_same_from_any_micro_batch(t5: Path, tmp_path: Path) -> None:
    """Its own loss would be as many times as large as a step has micro-batches."""
    found = []
    for micro in (1, 4):
        student = {"micro_batch_size": micro, "max_length": "auto", "max_steps": 2, "merge": False}
        summary = train_student(make_run(tmp_path / str(micro), t5, student=student))
        found.append([value for step in summary.losses for value in (step.loss, step.grad_norm)])
    assert found[0] == pytest.approx(found[1], rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_the_share_that_is_trained(base: Path, tmp_path: Path, method: str) -> None:
    """Full training counts every weight, an adapter its own; a 4-bit weight counts as one."""
    student = {"method": method, "max_steps": 1, "lora_rank": 1, "merge": False}
    summary = train_student(make_run(tmp_path, base, student=student))
    whole = sum(p.numel() for p in load_model(base, "b", device="cpu", dtype=None).parameters())
    assert summary.total_params == whole
    share = summary.trainable_params / summary.total_params
    assert share == 1 if method == "full" else 0 < share < 0.06


def test_lora_is_under_one_percent_at_real_sizes() -> None:
    """At a 1B model's widths the recipe's rank trains less than a hundredth of the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    with torch.device("meta"):
        model = add_adapter(LlamaForCausalLM(config), msgspec.structs.replace(PLAN, lora_rank=16))
    trained, total = trainable(model)
    assert 0 < trained / total < 0.01


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")
def test_qlora_merges_into_16_bit_weights(tmp_path: Path) -> None:
    """The merged student is a plain model in the base's precision, nothing of it quantized."""
    import torch

    base = make_base(tmp_path / "base")
    load_model(base, "base", device="cpu", dtype=torch.bfloat16).save_pretrained(base)
    folder = make_run(tmp_path / "run", base, student={"method": "qlora", "max_steps": 2})
    summary = train_student(folder)
    assert (summary.method, summary.adapter) == ("qlora", "student/adapter")
    config = orjson.loads((folder.student / "merged/config.json").read_bytes())
    assert "quantization_config" not in config
    assert config["dtype"] == summary.merged_dtype
    assert "qlora" in (folder.student / "adapter/README.md").read_text()


def test_qlora_without_bitsandbytes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra to install is named."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = one_line(make_run(tmp_path, base, student={"method": "qlora"}), MissingDependency)
    assert "selfinstruct[qlora]" in message


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")
def test_qlora_trains_on_after_an_answer(base: Path) -> None:
    """Answering in between, as measurements do, takes no gradient away."""
    import torch

    model = load_model(base, "b", device="cpu", dtype=torch.float32, quantized=True)
    model = add_adapter(model, msgspec.structs.replace(PLAN, method="qlora"))
    ids = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        model.eval()(ids)
    model.train()(ids, labels=ids).loss.backward()
    grads = [p.grad.abs().sum() for p in model.parameters() if p.requires_grad]
    assert sum(float(grad) > 0 for grad in grads) >= len(grads) // 2


# -- adapters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lora_targets": ["q_proj", "v_proj"]}, {"q_proj", "v_proj"}),
        ({"lora_rslora": True}, None),
        ({"lora_dora": True}, None),
        ({"lora_whole": ["lm_head"]}, None),
    ],
)
def test_adapter_options(base: Path, tmp_path: Path, settings: Any, expected: Any) -> None:
    """Targets, rsLoRA, DoRA and modules trained whole take effect, and a reload has the logits."""
    import torch

    plan = msgspec.structs.replace(PLAN, epochs=6, **settings)
    student = teach(base, plan, tmp_path / "work")
    assert student.fitted.losses[-1].loss < student.fitted.losses[0].loss
    config = student.model.peft_config["default"]
    assert config.use_rslora == plan.lora_rslora
    assert config.use_dora == plan.lora_dora
    if expected is not None:
        assert set(config.target_modules) == expected
    ids = torch.arange(40).reshape(2, 20)
    again = saved(student, plan, tmp_path / "saved")
    with torch.inference_mode():
        before, after = student.model(ids).logits, again(ids).logits
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)
    if plan.lora_whole:
        plain = load_model(base, "b", device="cpu", dtype=torch.float32)
        trained = again.get_output_embeddings().weight
        assert (plain.lm_head.weight - trained).abs().max() > 1e-3


def test_a_head_trained_whole_is_merged(base: Path, tmp_path: Path) -> None:
    """The merged student answers as base and adapter do, the whole-trained head included."""
    student = {"lora_whole": ["lm_head"], "max_steps": 4}
    assert train_student(make_run(tmp_path, base, student=student)).merged is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_targets": ["lm_head"]}, r"lora_targets: lm_head .*output.*lora_whole"),
        ({"lora_targets": ["q_proj", "embed_tokens"]}, r"embed_tokens .*input.*lora_whole"),
        ({"lora_targets": ["qkv"]}, r"no linear module qkv; .*down_proj, gate_proj"),
        ({"lora_targets": ["norm"]}, "no linear module norm; "),
        ({"lora_whole": ["head"]}, r"lora_whole: the model has no module head"),
    ],
)
def test_modules_that_cannot_be_trained_so(base: Path, settings: Any, said: str) -> None:
    """LoRA on the head or the embeddings, and names that are not there, say what to do."""
    import torch

    model = load_model(base, "b", device="cpu", dtype=torch.float32)
    with pytest.raises(RecipeError, match=said):
        check_modules(model, msgspec.structs.replace(PLAN, **settings))


def test_shared_embeddings_cannot_be_trained_whole(tmp_path: Path) -> None:
    """Where input and output share their weights, training one alone would part them."""
    import torch

    base = make_family("gemma-2", tmp_path)
    model = load_model(base, "gemma", device="cpu", dtype=torch.float32)
    with pytest.raises(RecipeError, match=r"lora_whole.*shares.*method=full"):
        check_modules(model, msgspec.structs.replace(PLAN, lora_whole=["lm_head"]))


# -- what follows fine-tuning ----------------------------------------------------------------------

PAIR = {"instruction": "Name a colour of the sky", "chosen": "Blue, and red at dusk."}
PAIRS = [PAIR | {"rejected": f"No {n}."} for n in range(4)]
KILLED = """
import os, signal
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import train_student
seen = []
def told(progress):
    seen.append(progress)
    if len(seen) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
train_student(RunFolder({path!r}), on_progress=told)
"""


def three(folder: Path, base: Path, method: str, data: Path) -> RunFolder:
    """A run of fine-tuning, distillation from the base itself, and preference."""
    student = {
        "method": method,
        "epochs": 2,
        "save_steps": 1,
        "merge": False,
        "lora_dropout": 0.1 if method == "lora" else 0,
        "distillation": {
            "teacher": str(base),
            "learning_rate": 1e-3,
            "max_new_tokens": 6,
        },
        "preference": {
            "data": write(data / "pairs.jsonl", *PAIRS),
            "learning_rate": 1e-3,
            "epochs": 3,
        },
    }
    return make_run(folder, base, student=student)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_follows_fine_tuning(base: Path, tmp_path: Path, method: str) -> None:
    """Distillation and preference follow each other, and card and report tell of them."""
    folder = three(tmp_path / "run", base, method, tmp_path)
    stages: list[str] = []
    found = train_student(folder, on_progress=lambda progress: stages.append(progress.stage))
    assert [one.kind for one in found.later] == ["distillation", "preference"]
    assert list(dict.fromkeys(stages)) == ["", "distillation", "preference"]
    assert [one.records for one in found.later] == [8, 4]
    distilled, preferred = losses(found)[1:]
    assert len(distilled) == 2
    assert preferred[0] == pytest.approx(0.6931, abs=1e-3)
    assert preferred[-1] < preferred[0]
    # The student's own answers count as tokens, and its prompts.
    prompts = sum(
        len(one.prompt)
        for one in StudentFormat(load_tokenizer(base, "b"), "b").examples(rows(), 96).kept
    )
    assert sum(step.tokens for step in found.later[0].losses) > prompts
    assert not (folder.student / "adapter/ref").exists()
    card = next(folder.student.glob("*/README.md")).read_text()
    assert "| then: preference | 3 steps on 4 pairs (pairs.jsonl)" in card
    shown = dict(_facts(msgspec.to_builtins(found)))
    assert "preference" in shown["Then"]


def test_kills_in_what_follows_change_nothing(base: Path, tmp_path: Path) -> None:
    """Killed in distillation and then in preference, the same command gives the losses and the
    weights of a run never stopped."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL on this system")
    from safetensors.torch import load_file

    whole = three(tmp_path / "whole", base, "lora", tmp_path)
    killed = three(tmp_path / "killed", base, "lora", tmp_path)
    expected = train_student(whole)
    for at in (6, 3):  # in the second step after fine-tuning's four, and two steps on from there
        script = KILLED.format(at=at, path=str(killed.path))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert losses(train_student(killed)) == losses(expected)
    name = "adapter/adapter_model.safetensors"
    one, other = (load_file(folder.student / name) for folder in (whole, killed))
    assert all(one[tensor].equal(other[tensor]) for tensor in one)


@pytest.mark.slow
def test_two_processes_do_what_follows_fine_tuning(base: Path, tmp_path: Path) -> None:
    """They take the same steps on the same records as one process does; one of them writes."""
    one = three(tmp_path / "one", base, "full", tmp_path)
    two = three(tmp_path / "two", base, "full", tmp_path)
    finish(two, processes=2)
    found = read_summary(two)
    assert found is not None
    expected, (tuned, distilled, preferred) = losses(train_student(one)), losses(found)
    assert tuned == pytest.approx(expected[0], rel=1e-4)
    # From here on each process draws answers of its own.
    assert len(distilled) == len(expected[1])
    assert preferred[0] == pytest.approx(expected[2][0], abs=1e-4)
    assert preferred[-1] < preferred[0]
    assert (two.student / "merged/model.safetensors").stat().st_size


def losses(summary: TrainSummary) -> list[list[float]]:
    return [[step.loss for step in part.losses] for part in (summary, *summary.later)]


@pytest.mark.parametrize("what", ["distillation", "preference"])
def test_t5_is_not_for_decoders_trainings(t5: Path, tmp_path: Path, what: str) -> None:
    """DPO and distillation of an encoder-decoder are refused before anything is trained."""
    settings = {"distillation": {"teacher": str(t5)}}
    settings["preference"] = {"data": write(tmp_path / "p.jsonl", *PAIRS)}
    student = {"max_length": "auto", what: settings[what]}
    folder = make_run(tmp_path / "run", t5, student=student)
    message = one_line(folder, RecipeError)
    assert f"student.{what}" in message
    assert "encoder-decoder" in message
    assert not folder.student.exists()


def test_a_teacher_of_other_tokens(base: Path, tmp_path: Path) -> None:
    """A teacher whose tokens are others is refused before anything is trained."""
    other = make_family("pythia", tmp_path / "other")
    folder = make_run(tmp_path / "r", base, student={"distillation": {"teacher": str(other)}})
    assert "has other tokens than the student's base" in one_line(folder, UserError)
    assert not folder.student.exists()


def test_pairs_that_are_faulty_or_too_long(base: Path, tmp_path: Path) -> None:
    """A faulty pair is named by file and line, and pairs that do not fit by the key to raise."""
    data = write(tmp_path / "p.jsonl", PAIR | {"rejected": PAIR["chosen"]})
    folder = make_run(tmp_path / "a", base, student={"preference": {"data": data}})
    assert "p.jsonl:1" in one_line(folder, SeedError)
    data = write(tmp_path / "q.jsonl", *(pair | {"input": "x" * 300} for pair in PAIRS))
    folder = make_run(tmp_path / "b", base, student={"preference": {"data": data}})
    assert "student.max_length" in one_line(folder, UserError)


# -- records and tokens ----------------------------------------------------------------------------


def test_conversations_are_trained_on_with_the_records(base: Path, tmp_path: Path) -> None:
    """A file of conversations joins the run's records, with its own loss masks."""
    data = write(tmp_path / "talks.jsonl", {"messages": CONVERSATION}, {"messages": CONVERSATION})
    student = {"conversations": data, "max_steps": 1, "merge": False, "max_length": 256}
    summary = train_student(make_run(tmp_path / "run", base, student=student))
    assert summary.train_records == 10


def test_a_conversation_that_is_split_is_told(tmp_path: Path) -> None:
    """Where a template rewrites earlier turns, the notes say that conversations were split."""
    base = make_family("qwen-3", tmp_path / "base")
    data = write(tmp_path / "talks.jsonl", {"messages": CONVERSATION})
    student = {"conversations": data, "max_steps": 1, "merge": False, "max_length": "auto"}
    summary = train_student(make_run(tmp_path / "run", base, student=student))
    assert summary.train_records == 10
    assert any("an example for each answer (1 more" in note for note in summary.notes)


def test_max_length_follows_the_data(base: Path, tmp_path: Path) -> None:
    """The default leaves 99% of the records whole, and says what it is and what was cut."""
    assert StudentConfig(base="b").max_length == "auto"
    assert auto_length([10] * 99 + [500], None) == 16
    assert auto_length([*range(1, 101)], None) == 99
    assert auto_length([300] * 5, 256) == 256
    long = rows([("Say it", "", "word " * 150)])
    train = [row | {"id": f"x{n}"} for n in range(15) for row in rows()] + long
    student = {"max_length": "auto", "max_steps": 1, "merge": False}
    summary = train_student(make_run(tmp_path, base, train=train, student=student))
    assert summary.truncated == 1
    assert any(
        f"at most {summary.max_length} tokens: 99% of the records" in note for note in summary.notes
    )
    assert any("1 records longer than" in note for note in summary.notes)


def test_no_chat_template_is_said(tmp_path: Path) -> None:
    """A base without one works, and the notes say on which prompt."""
    base = make_base(tmp_path / "base", chat=False)
    student = {"max_steps": 1, "merge": False, "max_length": "auto"}
    summary = train_student(make_run(tmp_path / "run", base, student=student))
    assert any("no chat template, so Alpaca's prompt" in note for note in summary.notes)


def test_shown_masks_are_what_is_trained(base: Path, tmp_path: Path) -> None:
    """Pieces put together are the text, and what is learned are the answers with their ends."""
    data = write(tmp_path / "talks.jsonl", {"messages": CONVERSATION})
    folder = make_run(tmp_path / "run", base, student={"conversations": data, "max_length": 200})
    shown = {one.id: one for one in shown_masks(folder, 99)}
    assert len(shown) == 9
    talk = shown["talks.jsonl:1"]
    text = "".join(piece.text for piece in talk.pieces)
    assert text.startswith("<|im_start|>user\nName the opposite of cold<|im_end|>")
    assert [piece.text for piece in talk.pieces if piece.kind == "learned"] == ["Warm.", "Geese."]
    ends = [piece.text for piece in talk.pieces if piece.kind == "learned special"]
    assert ends == ["<|im_end|>", "<|im_end|>"]
    assert sum(piece.tokens for piece in talk.pieces) == talk.length
    learned = sum(piece.tokens for piece in talk.pieces if piece.kind.startswith("learned"))
    assert learned == talk.learned
    assert len(shown_masks(folder, 2)) == 2


def test_masks_are_printed_in_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learned is green on a terminal, special tokens reversed; elsewhere it is plain."""
    form = StudentFormat(make_tokenizer(chat=True), "b")
    (example,) = form.tokenize([{"id": "talk", "messages": CONVERSATION}])
    shown = [show(example, form.tokenizer)]
    print_masks(shown)
    plain = capsys.readouterr().out
    assert plain.startswith(f"--- talk: {example.learned} of {example.length} tokens learned\n")
    assert "<|im_start|>assistant\nWarm.<|im_end|>\n" in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_masks(shown)
    coloured = capsys.readouterr().out
    assert "\x1b[1;32mGeese.\x1b[0m\x1b[1;7;32m<|im_end|>" in coloured
    assert "\x1b[2mName the opposite of cold" in coloured or "\x1b[2muser\n" in coloured


def test_a_disk_that_fills_up_in_a_checkpoint(base: Path, tmp_path: Path) -> None:
    """A checkpoint that cannot be written whole is told in one line, and is no checkpoint."""
    resource = pytest.importorskip("resource")
    import torch

    form = StudentFormat(load_tokenizer(base, "b"), "b")
    examples = form.examples(rows(), 96).kept
    plan = msgspec.structs.replace(PLAN, save_steps=1)
    model = load_model(base, "b", device="cpu", dtype=torch.float32)
    model = add_adapter(model, plan)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))

    try:
        with pytest.raises(FolderError, match="make room") as error:
            fit(model, form.tokenizer, examples, plan, tmp_path, "m", lambda: 0.0, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.rglob("complete.json"))
