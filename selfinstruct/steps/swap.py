"""Replace a folder as a whole: written beside it, then swapped in by renaming.

A folder cannot be replaced in one step on every system. Between two renames the folder is gone
under its name, but the old one and the new one are whole beside it, and the next `replacing` ends
the swap before it begins another.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` when the block ends, if anything was put into it.

    If the block raises, `folder` stays as it was. One process at a time. Raises `OSError`.
    """
    writing = _beside(folder, "writing")
    _clean_up(folder)
    writing.mkdir(parents=True)
    try:
        yield writing
        if any(writing.iterdir()):
            _sync(writing)
            writing.rename(_beside(folder, "ready"))
            _swap(folder)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _beside(folder: Path, state: str) -> Path:
    return folder.with_name(f".{folder.name}.{state}")


def _clean_up(folder: Path) -> None:
    """Bring `folder` to where an earlier process, killed at any point, was going."""
    if _beside(folder, "ready").exists():
        _swap(folder)
    elif _beside(folder, "old").exists() and not folder.exists():
        _beside(folder, "old").rename(folder)
    for state in ("writing", "old"):
        if _beside(folder, state).exists():
            shutil.rmtree(_beside(folder, state))


def _swap(folder: Path) -> None:
    """Put the ready folder in the place of `folder`; what was there goes."""
    ready, old = _beside(folder, "ready"), _beside(folder, "old")
    if folder.exists():
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)
    ready.rename(folder)
    _sync_folder(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def _sync(folder: Path) -> None:
    """Have every file of `folder` on the disk, so that a power cut after the swap finds them."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
