"""Checkpoints that can be trusted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from selfinstruct.core.errors import FolderError
from selfinstruct.steps.training.checkpoints import (
    MARK,
    last_complete,
    mark_complete,
    read_clock,
    remove_torn,
    write_clock,
    writing,
)


def write(folder: Path, step: int, fingerprint: str = "f") -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"w" * 100)
    (checkpoint / "state.json").write_text("{}")
    mark_complete(checkpoint, fingerprint)
    return checkpoint


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    """Checkpoints are ordered by step, not by name."""
    write(tmp_path, 9)
    newest = write(tmp_path, 10)
    assert last_complete(tmp_path, "f") == newest


@pytest.mark.parametrize("damage", ["unmarked", "truncated", "missing file", "torn mark"])
def test_a_torn_checkpoint_is_skipped_and_removed(tmp_path: Path, damage: str) -> None:
    """Whatever a kill left unfinished is no checkpoint: the one before it is used."""
    older, torn = write(tmp_path, 2), write(tmp_path, 4)
    if damage == "unmarked":
        (torn / MARK).unlink()
    elif damage == "truncated":
        (torn / "weights").write_bytes(b"w" * 50)
    elif damage == "missing file":
        (torn / "weights").unlink()
    else:
        (torn / MARK).write_text('{"fingerpri')
    assert last_complete(tmp_path, "f") == older
    assert remove_torn(tmp_path, "f") == 1
    assert older.is_dir()
    assert not torn.exists()


def test_checkpoints_of_another_training_do_not_count(tmp_path: Path) -> None:
    """Settings or data that changed make another training."""
    write(tmp_path, 2, "other")
    assert last_complete(tmp_path, "f") is None
    assert last_complete(tmp_path / "nowhere", "f") is None


def test_the_clock_survives(tmp_path: Path) -> None:
    """The seconds so far can be read back; a torn file is no time at all."""
    assert read_clock(tmp_path) is None
    write_clock(tmp_path / "new", "f", 12.5)
    clock = read_clock(tmp_path / "new")
    assert clock is not None
    assert (clock.fingerprint, clock.seconds) == ("f", 12.5)
    (tmp_path / "new" / "clock.json").write_text("{")
    assert read_clock(tmp_path / "new") is None


@pytest.mark.parametrize(
    ("number", "todo"), [(errno.ENOSPC, "make room"), (errno.EACCES, "mend this")]
)
def test_what_cannot_be_written_says_what_to_do(tmp_path: Path, number: int, todo: str) -> None:
    """Room is of no use where writing is not allowed."""
    with pytest.raises(FolderError, match=f"{todo}, then give the same command again"):
        fail(tmp_path, number)


def fail(folder: Path, number: int) -> None:
    with writing(folder):
        raise OSError(number, os.strerror(number))
