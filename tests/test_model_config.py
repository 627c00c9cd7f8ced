"""A base whose files are torn, unknown or do not belong together is told in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfinstruct.core.errors import UserError
from selfinstruct.steps.model_config import check_files, check_writes, load_config
from selfinstruct.steps.planning.model import measure_model
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.base import find_base
from selfinstruct.steps.training.loading import load_model, load_tokenizer
from tests.tiny_student import make_base


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "mine"))


def change(folder: Path, **settings: Any) -> None:
    """Change keys of config.json; None takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def said(work: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """The one line that `work` refuses with, without the base's name."""
    with pytest.raises(UserError, match=r"^student\.base: mine: ") as caught:
        work(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("student.base: mine: ")


def test_a_whole_base_passes(base: Path) -> None:
    """What was saved as a model is read as one, as one file or in shards."""
    check_files(base, "mine")
    assert load_config(base, "mine").model_type == "llama"
    model = load_model(base, "mine", device="cpu", dtype="float32")
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="20KB")
    assert (base / "model.safetensors.index.json").is_file()
    check_files(base, "mine")


@pytest.mark.parametrize("left", [0, 5, 20_000, -1])
def test_torn_weights_are_found_before_anything_else(base: Path, left: int) -> None:
    """Half a download, down to nothing and up to one byte too few, is no fault of the disk's."""
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(UserError, match=r"model\.safetensors is cut short or damaged; fetch it"):
        find_base(str(base), Policy())


@pytest.mark.parametrize("header", [b"[]", b"nonsense", b'{"a": 1}', b'{"a": {}}'])
def test_weights_with_another_header_are_no_weights(base: Path, header: bytes) -> None:
    """A file that only bears the name is found too."""
    whole = len(header).to_bytes(8, "little") + header
    (base / "model.safetensors").write_bytes(whole)
    assert "is cut short or damaged" in said(check_files, base, "mine")


def test_a_shard_that_is_not_there_is_named(base: Path) -> None:
    """The index says which files there should be."""
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (base / "model.safetensors").rename(base / "model-1.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert said(check_files, base, "mine").startswith("model-2.safetensors is not there; fetch")


@pytest.mark.parametrize("text", ['{"architectures": ["Lla', "[]", "", '"llama"'])
def test_a_torn_config_is_named(base: Path, text: str) -> None:
    """The file is named, not what a parser made of it."""
    (base / "config.json").write_text(text)
    assert said(check_files, base, "mine").startswith("config.json is cut short or damaged")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "llama9"}, r"transformers \d.* has no architecture llama9; update it"),
        ({"model_type": None}, "its config.json names no model_type"),
        ({"hidden_size": "wide"}, "its config.json cannot be read"),
        ({"dtype": "float99"}, "its config.json cannot be read"),
    ],
)
def test_what_transformers_does_not_know_is_named(
    base: Path, settings: dict[str, Any], message: str
) -> None:
    """An architecture of next year says what to do, and a number that is none where it stands."""
    change(base, **settings)
    found = said(load_config, base, "mine")
    assert re.match(message, found), found


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("BertConfig", "a bert encoder, which does not write on from a prompt"),
        ("T5Config", "a t5 encoder, which does not write on from a prompt"),
        ("ViTConfig", "a vit, which does not write on from a prompt"),
        ("Qwen2VLConfig", "a qwen2_vl, which reads pictures too"),
    ],
)
def test_a_model_that_does_not_write_is_no_base(tmp_path: Path, config: str, what: str) -> None:
    """Of BERT the library makes a causal model whose loss falls, for it sees the answer."""
    import transformers

    settings = {"is_encoder_decoder": False} if config == "T5Config" else {}
    getattr(transformers, config)(**settings).save_pretrained(tmp_path)
    assert said(check_writes, tmp_path, "mine").startswith(f"is {what}; choose a causal")


def test_weights_that_hold_more_than_weights_are_not_run(base: Path) -> None:
    """A pickle that is damaged, or runs code, is refused in one line."""
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(b"not a pickle")
    found = said(load_model, base, "mine", device="cpu", dtype="float32")
    assert found.startswith("pytorch_model.bin is damaged, or holds more than weights")


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would ask on the terminal whether to run it."""

    def ask(prompt: str = "") -> str:
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr("builtins.input", ask)
    (base / "own.py").write_text("raise SystemExit('it ran')")
    change(base, model_type="own", auto_map={"AutoConfig": "own.Config"})
    assert "is code that comes with the model, which is not run here" in said(
        load_config, base, "mine"
    )


def test_a_config_no_model_can_be_made_of_is_refused(base: Path) -> None:
    """A number that the config's own checks let through stops the plan, with the reason."""
    change(base, hidden_act="no-such")
    assert "no model can be made of its config ('no-such')" in said(measure_model, base, "mine")


def test_config_and_weights_of_two_models_are_told_by_a_shape(base: Path) -> None:
    """The first weight of another shape is named, with both."""
    change(base, hidden_size=64)
    found = said(load_model, base, "mine", device="cpu", dtype="float32")
    assert found.startswith("config.json and weights do not belong together: ")
    assert ", not " in found


def test_a_folder_without_a_tokenizer_says_so(base: Path) -> None:
    """The library speaks of a backend that it cannot instantiate."""
    for path in base.glob("tokenizer*"):
        path.unlink()
    assert said(load_tokenizer, base, "mine").startswith("holds no tokenizer (tokenizer.json, ")
