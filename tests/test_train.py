"""The train stage, on a tiny random model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
import yaml

from selfinstruct.core.errors import FolderError, MissingDependency, RecipeError, UserError
from selfinstruct.core.money import from_dollars
from selfinstruct.engine.accounts import bill
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.stages.train import TrainSummary, train_student
from selfinstruct.steps.training.checkpoints import write_clock
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.loading import load_model, load_tokenizer
from selfinstruct.steps.training.measures import greedy
from selfinstruct.steps.training.progress import TrainProgress
from selfinstruct.steps.training.summary import parse_summary
from tests.tiny_student import make_base, make_run, rows

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

OVERFIT = {"epochs": 40, "batch_size": 8, "micro_batch_size": 8, "scheduler": "constant"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def plain_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base without a chat template."""
    return make_base(tmp_path_factory.mktemp("plain"), chat=False)


class Trained(msgspec.Struct):
    """A run that was trained once, with what was told and printed meanwhile."""

    folder: RunFolder
    summary: TrainSummary
    progress: list[TrainProgress]


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """LoRA on every layer until the eight records are known by heart."""
    settings = OVERFIT | {"gpu_hour_price": "3.60", "lora_rank": 32, "lora_alpha": 64}
    folder = make_run(
        tmp_path_factory.mktemp("run"),
        base,
        student=settings,
        publish={"dataset_repo": "acme/tasks"},
    )
    told: list[TrainProgress] = []
    summary = train_student(folder, on_progress=told.append)
    return Trained(folder, summary, told)


def answers(folder: Path, adapter: Path | None = None) -> list[str]:
    """Greedy answers of a saved model, by its own tokenizer and stop tokens, to all records.

    An answer that did not come to its end within the limit is marked.
    """
    import torch

    model = load_model(folder, "student", device="cpu", dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    tokenizer = load_tokenizer(adapter or folder, "student")
    form = StudentFormat(tokenizer, "student")
    limit = 40
    found = greedy(
        model,
        form.prompt_ids(rows()),
        max_new_tokens=limit,
        stop_ids=form.stop_ids,
        pad_id=tokenizer.pad_token_id,
    )
    return [tokenizer.decode(ids) + ("" if len(ids) < limit else "...") for ids in found]


# -- what training does ----------------------------------------------------------------------------


def test_the_loss_falls(trained: Trained) -> None:
    """Eight records seen forty times are learned by heart."""
    losses = [step.loss for step in trained.summary.losses]
    assert losses[0] > 4
    assert losses[-1] < 0.1


def test_the_student_answers_and_stops(trained: Trained, base: Path) -> None:
    """Adapter and merged model give every record's answer and then end it."""
    expected = [row["output"] for row in rows()]
    assert answers(trained.folder.path / "student/merged") == expected
    assert answers(base, trained.folder.path / "student/adapter") == expected


def test_merged_is_the_adapter(trained: Trained, base: Path) -> None:
    """The reloaded merged model has the logits of base and adapter apart."""
    import torch
    from peft import PeftModel

    one = load_model(base, "base", device="cpu", dtype=torch.float32)
    one = PeftModel.from_pretrained(one, trained.folder.path / "student/adapter")
    other = load_model(
        trained.folder.path / "student/merged", "merged", device="cpu", dtype=torch.float32
    )
    ids = torch.arange(60).reshape(2, 30)
    with torch.no_grad():
        torch.testing.assert_close(one(ids).logits, other(ids).logits, rtol=1e-4, atol=1e-4)
        plain = load_model(base, "base", device="cpu", dtype=torch.float32)(ids).logits
    assert (plain - other(ids).logits).abs().max() > 0.1


def test_generation_settings_are_set_on_purpose(trained: Trained) -> None:
    """The merged folder says which tokens end an answer and which one pads."""
    merged = trained.folder.path / "student/merged"
    found = orjson.loads((merged / "generation_config.json").read_bytes())
    tokenizer = load_tokenizer(merged, "merged")
    assert tokenizer.convert_ids_to_tokens(found["eos_token_id"]) == "<|im_end|>"
    assert found["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.chat_template


def test_the_summary_says_what_was_done(trained: Trained) -> None:
    """training.json has the counts, one entry a step, and what was told is what is written."""
    summary = trained.summary
    written = orjson.loads((trained.folder.student / "training.json").read_bytes())
    assert written == msgspec.to_builtins(summary)
    assert (summary.steps, summary.epochs, summary.train_records) == (40, 40, 8)
    assert [entry.step for entry in summary.losses] == list(range(1, 41))
    tokenizer = load_tokenizer(trained.folder.path / "student/adapter", "student")
    found = StudentFormat(tokenizer, "student").examples(rows(), 96).kept
    assert summary.tokens == 40 * sum(example.length for example in found)
    assert summary.useful_tokens == 40 * sum(len(example.answer) for example in found)
    assert summary.padded_tokens == 40 * 8 * max(example.length for example in found)
    assert 0 < summary.trainable_params < summary.total_params
    assert [(told.step, told.steps, told.loss) for told in trained.progress] == [
        (entry.step, 40, entry.loss) for entry in summary.losses
    ]
    assert summary.losses[-1].learning_rate == pytest.approx(0.01)
    assert summary.losses[0].grad_norm is not None
    assert not (trained.folder.student / "checkpoints").exists()


def test_the_bill_has_hours_and_tokens(trained: Trained) -> None:
    """An hour costs what the recipe says; tokens are counted."""
    with Ledger.read(trained.folder.db_path) as ledger:
        lines = {(line.item, line.unit): line for line in bill(ledger)}
    hours = lines["this machine", "hours"]
    assert hours.quantity == pytest.approx(trained.summary.seconds / 3600)
    assert hours.cost == pytest.approx(from_dollars("3.60") * hours.quantity)
    assert lines["tokens trained", "tokens"].quantity == trained.summary.tokens


def test_cards_name_base_data_and_form(trained: Trained, base: Path) -> None:
    """Both cards have the Hub's front matter; neither tells where things lie on this machine."""
    for part, library in (("adapter", "peft"), ("merged", "transformers")):
        text = (trained.folder.student / part / "README.md").read_text("utf-8")
        front = yaml.safe_load(text.split("---\n")[1])
        assert front["library_name"] == library
        assert front["datasets"] == ["acme/tasks"]
        assert front["license"] == "other"
        assert "base_model" not in front, "the base is on this machine alone"
        assert "<|im_start|>assistant" in text
        assert f"| max length | {trained.summary.max_length} |" in text
        assert str(base.parent) not in text
    config = (trained.folder.student / "adapter/adapter_config.json").read_text()
    assert orjson.loads(config)["base_model_name_or_path"] is None


def test_nothing_is_done_twice(trained: Trained) -> None:
    """An up-to-date student is left alone; only its cards follow the recipe."""
    before = (trained.folder.student / "adapter/adapter_model.safetensors").stat().st_mtime_ns
    recipe = trained.folder.recipe()
    told: list[Any] = []
    publish = recipe.publish.model_copy(update={"dataset_repo": "acme/renamed"})
    trained.folder.save_recipe(recipe.model_copy(update={"publish": publish}))
    try:
        again = train_student(trained.folder, on_progress=told.append)
    finally:
        card = (trained.folder.student / "merged/README.md").read_text()
        trained.folder.save_recipe(recipe)
    assert again == trained.summary
    assert not told
    after = (trained.folder.student / "adapter/adapter_model.safetensors").stat().st_mtime_ns
    assert after == before
    assert "acme/renamed" in card


def test_other_settings_train_again(base: Path, tmp_path: Path) -> None:
    """Changed settings, changed records and force train anew; merge=false leaves the adapter."""
    folder = make_run(tmp_path, base, student={"max_steps": 1, "merge": False})
    first = train_student(folder)
    assert first.merged is None
    assert not (folder.student / "merged").exists()
    make_run(tmp_path, base, student={"max_steps": 2, "merge": False})
    second = train_student(folder)
    assert second.steps == 2
    make_run(tmp_path, base, train=rows()[:5], student={"max_steps": 2, "merge": False})
    third = train_student(folder)
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3
    told: list[Any] = []
    train_student(folder, force=True, on_progress=told.append)
    assert len(told) == 2


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_the_learning_rate_follows_the_recipe(base: Path, tmp_path: Path, scheduler: str) -> None:
    """The rate warms up for its share of the steps, then falls or stays; short ones waste none."""
    student = {"epochs": 4, "warmup_ratio": 0.25, "scheduler": scheduler, "merge": False}
    rates = [
        step.learning_rate
        for step in train_student(make_run(tmp_path, base, student=student)).losses
    ]
    assert len(rates) == 8
    assert rates[:3] == pytest.approx([0, 0.005, 0.01])
    assert rates[-1] == pytest.approx(0.01) if scheduler == "constant" else rates[-1] < 0.004
    make_run(tmp_path, base, student=student | {"max_steps": 1})
    assert train_student(RunFolder(tmp_path)).losses[0].learning_rate == pytest.approx(0.01)


def test_full_training_without_a_chat_template(plain_base: Path, tmp_path: Path) -> None:
    """All weights are trained on Alpaca's prompt, and the student still learns to stop."""
    settings = OVERFIT | {"method": "full", "max_length": 200, "micro_batch_size": 3}
    folder = make_run(tmp_path, plain_base, student=settings)
    summary = train_student(folder)
    assert (summary.prompt_format, summary.adapter) == ("alpaca", None)
    assert summary.trainable_params == summary.total_params
    assert "### Response:" in (folder.student / "merged/README.md").read_text()
    assert answers(folder.student / "merged") == [row["output"] for row in rows()]


def test_the_merged_model_keeps_the_bases_dtype(tmp_path: Path) -> None:
    """A base stored in bfloat16 gives a merged student in bfloat16, unless that changes answers."""
    import torch

    base = make_base(tmp_path / "base")
    model = load_model(base, "base", device="cpu", dtype=torch.bfloat16)
    model.save_pretrained(base)
    summary = train_student(make_run(tmp_path / "run", base, student={"max_steps": 1}))
    assert summary.merged_dtype in ("bfloat16", "float32")
    stored = orjson.loads((tmp_path / "run/student/merged/config.json").read_bytes())["dtype"]
    assert stored == summary.merged_dtype


def test_long_records_are_counted_aloud(base: Path, tmp_path: Path) -> None:
    """Records that were cut or left out are counted and named in the notes."""
    long = rows([("Say it", "", "word " * 60), ("Say " * 99, "", "No room for this.")])
    train = rows() + [row | {"id": f"long{n}"} for n, row in enumerate(long)]
    folder = make_run(tmp_path, base, train=train, student={"max_steps": 1, "merge": False})
    summary = train_student(folder)
    assert (summary.truncated, summary.fully_masked, summary.train_records) == (1, 1, 9)
    assert "long0" in summary.notes[0]
    assert "long1" in summary.notes[1]


def test_it_is_quiet_and_talks_to_nobody(base: Path, tmp_path: Path) -> None:
    """Libraries print nothing, and open no connection although nothing keeps them off line."""
    make_run(tmp_path, base, test=rows()[:2], student={"max_steps": 1})
    script = f"""
import sys
calls = []
sys.addaudithook(lambda event, args: event in ("socket.connect", "socket.getaddrinfo")
                 and calls.append((event, str(args))))
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.evaluate import evaluate
from selfinstruct.stages.train import train_student
folder = RunFolder({str(tmp_path)!r})
train_student(folder)
evaluate(folder)
assert not calls, calls
"""
    hidden = ("CI", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    done = run_child(script, without=hidden)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


# -- kill and resume -------------------------------------------------------------------------------

DROPOUT = {"epochs": 4, "save_steps": 2, "lora_dropout": 0.2, "merge": False}
KILLED = """
import os, signal
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.train import train_student
def at(progress):
    if progress.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
train_student(RunFolder({path!r}), on_progress=at)
"""


def run_child(script: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def interrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose training was killed in its seventh of eight steps."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL on this system")
    folder = tmp_path_factory.mktemp("killed")
    make_run(folder, base, student=DROPOUT)
    done = run_child(KILLED.format(path=str(folder)))
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainSummary:
    """The same training without interruption."""
    return train_student(make_run(tmp_path_factory.mktemp("whole"), base, student=DROPOUT))


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_training_continues(
    interrupted: Path, whole: TrainSummary, tmp_path: Path, torn: bool
) -> None:
    """After kill -9 the same command goes on from the last whole checkpoint, to equal losses."""
    folder = RunFolder(shutil.copytree(interrupted, tmp_path / "run"))
    checkpoints = folder.student / "checkpoints"
    assert (checkpoints / "checkpoint-6").is_dir()
    if torn:
        with (checkpoints / "checkpoint-6/optimizer.pt").open("r+b") as file:
            file.truncate(1000)
    told: list[int] = []
    summary = train_student(folder, on_progress=lambda now: told.append(now.step))
    assert told[0] == (5 if torn else 7)
    assert [step.loss for step in summary.losses] == [step.loss for step in whole.losses]
    assert [step.tokens for step in summary.losses] == [step.tokens for step in whole.losses]
    assert summary.steps == 8
    assert not checkpoints.exists()


def test_a_training_given_up_is_billed(interrupted: Path, base: Path, tmp_path: Path) -> None:
    """Hours that went into other settings are on the bill, apart from this training's."""
    folder = RunFolder(shutil.copytree(interrupted, tmp_path / "run"))
    clock = orjson.loads((folder.student / "checkpoints/clock.json").read_bytes())
    write_clock(folder.student / "checkpoints", clock["fingerprint"], 1800.0)
    make_run(folder.path, base, student=DROPOUT | {"max_steps": 1, "gpu_hour_price": 2})
    summary = train_student(folder)
    assert summary.seconds < 1000
    with Ledger.read(folder.db_path) as ledger:
        lines = {line.item: line for line in bill(ledger)}
    assert lines["this machine, training given up"].cost == from_dollars(1)


@pytest.mark.slow
def test_two_processes_train_as_one(base: Path, tmp_path: Path) -> None:
    """Under torchrun the batch is shared out, losses are those of one process, and one writes.

    So is the last step's, in which there is one example left.
    """
    settings = {"epochs": 21 / 8, "merge": False}
    alone = train_student(make_run(tmp_path / "one", base, student=settings))
    folder = make_run(tmp_path / "two", base, student=settings)
    script = tmp_path / "train.py"
    script.write_text(
        "from selfinstruct.engine.folder import RunFolder\n"
        "from selfinstruct.stages.train import train_student\n"
        f"train_student(RunFolder({str(folder.path)!r}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    together = parse_summary(folder.read_json(folder.student / "training.json"))
    assert together is not None
    assert [step.loss for step in together.losses] == pytest.approx(
        [step.loss for step in alone.losses], rel=1e-4
    )
    assert together.tokens == alone.tokens


# -- what a user can get wrong ---------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops(base: Path, tmp_path: Path) -> None:
    """Training with an absurd learning rate stops at once and says what to change."""
    settings = {"method": "full", "learning_rate": 1e38, "epochs": 20, "warmup_ratio": 0}
    folder = make_run(tmp_path, base, student=settings)
    with pytest.raises(UserError, match=r"loss became (nan|inf) at step \d+.*learning_rate"):
        train_student(folder)
    assert not (folder.student / "training.json").exists()


def test_a_device_that_is_too_small(base: Path, tmp_path: Path) -> None:
    """A device that runs out of memory is answered with the settings to lower."""
    import torch

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    folder = make_run(tmp_path, base, student={"max_steps": 2})
    with pytest.raises(UserError, match=r"memory with 2 examples.*student\.micro_batch_size"):
        train_student(folder, on_progress=run_out)


def one_line(folder: RunFolder, kind: type[UserError]) -> str:
    """The one line that training raises."""
    with pytest.raises(kind) as caught:
        train_student(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_run_without_student_or_dataset(base: Path, tmp_path: Path) -> None:
    """No student in the recipe, no dataset, and a dataset without records each say what to do."""
    folder = make_run(tmp_path / "a", base)
    folder.save_recipe(folder.recipe().model_copy(update={"student": None}))
    assert "no base is named" in one_line(folder, RecipeError)
    folder = make_run(tmp_path / "b", base, train=[])
    assert "no training records" in one_line(folder, FolderError)
    broken = folder.dataset / "data/train-00000-of-00001.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not parquet")
    assert "train-00000" in one_line(folder, FolderError)


def test_a_method_that_is_not_known(base: Path, tmp_path: Path) -> None:
    """The recipe's check refuses another method by name."""
    with pytest.raises(ValueError, match="method"):
        make_run(tmp_path, base, student={"method": "prefix"})


def test_limits_that_do_not_fit(base: Path, tmp_path: Path) -> None:
    """More positions than the model has, or too few for any answer, are refused."""
    folder = make_run(tmp_path / "a", base, student={"max_length": 257})
    assert "256" in one_line(folder, RecipeError)
    folder = make_run(tmp_path / "b", base, student={"max_length": 16})
    assert "student.max_length" in one_line(folder, UserError)


def test_bases_that_cannot_be_trained(tmp_path: Path) -> None:
    """No end token, a foreign tokenizer and missing weights are told apart."""
    import torch
    from safetensors.torch import load_file, save_file

    endless = make_base(tmp_path / "endless", chat=False, eos=None)
    assert "end-of-sequence" in one_line(make_run(tmp_path / "a", endless), UserError)
    small = make_base(tmp_path / "small", vocabulary=100)
    assert "do not belong together" in one_line(make_run(tmp_path / "b", small), UserError)
    holed = make_base(tmp_path / "holed")
    weights = load_file(holed / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, holed / "model.safetensors", metadata={"format": "pt"})
    assert "layers.1.mlp.up_proj" in one_line(make_run(tmp_path / "c", holed), UserError)
    assert torch.get_default_dtype() is torch.float32


def test_a_device_that_is_not_there(base: Path, tmp_path: Path) -> None:
    """A GPU asked for by name is not silently replaced."""
    import torch

    absent = next(
        name
        for name, found in {
            "mps": torch.backends.mps.is_available(),
            "cuda": torch.cuda.is_available(),
        }.items()
        if not found
    )
    folder = make_run(tmp_path, base, student={"device": absent})
    assert "student.device" in one_line(folder, RecipeError)


def test_a_missing_package(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TRL the extra to install is named."""
    monkeypatch.setitem(sys.modules, "trl", None)
    message = one_line(make_run(tmp_path, base), MissingDependency)
    assert "selfinstruct[train]" in message


def test_a_disk_that_is_full(base: Path, tmp_path: Path) -> None:
    """A student folder that cannot be written is the user's to mend."""
    folder = make_run(tmp_path, base, student={"max_steps": 1})
    folder.student.write_text("a file where the folder should be")
    assert "cannot be written" in one_line(folder, FolderError)
