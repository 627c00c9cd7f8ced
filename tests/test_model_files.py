"""Marks of a model's files: the same for a copy, others for other files."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from selfinstruct.steps import model_files
from selfinstruct.steps.model_files import folder_mark, model_mark


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with 5 MB of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "vocab.txt").write_text("a b")
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(5 << 20))
    return folder


def test_a_copy_has_the_same_mark(model: Path, tmp_path: Path) -> None:
    """Neither the place nor the time of a file counts, nor does a note beside it."""
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / "notes.md").write_text("mine")
    assert folder_mark(copy) == folder_mark(model) == model_mark(str(model))


@pytest.mark.parametrize("where", [0, 1 << 20, (3 << 20) + 123_456, (5 << 20) - 1])
def test_changed_weights_show(model: Path, where: int) -> None:
    """16 KB changed anywhere in the file give another mark; so does another size."""
    before = folder_mark(model)
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    for at in range(where, min(len(data), where + (16 << 10))):
        data[at] ^= 255
    weights.write_bytes(data)
    assert folder_mark(model) != before
    weights.write_bytes(data[:-1])
    assert folder_mark(model) != before


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "1_Pooling/config.json"])
def test_changed_settings_show(model: Path, name: str) -> None:
    """A setting or a token changed, or a file of settings added, gives another mark."""
    before = folder_mark(model)
    path = model / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"x": 1}')
    assert folder_mark(model) != before


def test_little_is_read_of_a_large_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes read do not grow with the file: here twice its pieces fit into the rest of it."""
    monkeypatch.setattr(model_files, "WHOLE", 1000)
    monkeypatch.setattr(model_files, "PIECES", 4)
    before = folder_mark(model)
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[2 << 20] ^= 255  # between two pieces
    weights.write_bytes(data)
    assert folder_mark(model) == before


def test_names_without_files_have_no_mark(tmp_path: Path) -> None:
    """What is on the Hub or shipped is told by its name; a single file has a mark."""
    assert model_mark("owner/name") == model_mark("minilm") == ""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert model_mark(str(tmp_path / "m.gguf"))
