"""A run folder stays as it was where a training is refused before it has begun."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from selfinstruct.core.errors import UserError
from selfinstruct.engine.folder import LOCK, OWNER, RunFolder, write_atomically


@contextlib.contextmanager
def as_it_was(path: str | Path) -> Iterator[None]:
    """Undo in the run folder at `path` what was done within, where it ends in a user's mistake.

    A new folder goes, with those that were made for it; an earlier run gets its recipe back, and
    the dataset of that. A training that has begun is kept: the same command continues it.
    """
    folder = RunFolder(path)
    there = {child.name for child in folder.path.iterdir()} if folder.path.is_dir() else set()
    missing = [one for one in (folder.path, *folder.path.parents) if not one.exists()]
    recipe, dataset = _bytes(folder.recipe_path), _bytes(folder.dataset / "dataset.json")
    begun = _trace(folder)
    try:
        yield
    except (UserError, SystemExit) as error:
        refused = isinstance(error, UserError) or error.code == UserError.exit_code
        if refused and folder.path.is_dir() and _trace(folder) == begun:
            with contextlib.suppress(UserError, OSError):  # another process may be at work here
                if recipe is None:
                    _remove(folder, there, missing)
                else:
                    _restore(folder, recipe, dataset)
        raise


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _trace(folder: RunFolder) -> list[int | None]:
    """What differs once the trainer was made, and after each of its steps."""
    checkpoints = folder.student / "checkpoints"
    places = [folder.student, checkpoints, checkpoints / "clock.json"]
    return [one.stat().st_mtime_ns if one.exists() else None for one in places]


def _remove(folder: RunFolder, there: set[str], missing: list[Path]) -> None:
    with folder.lock():
        for child in list(folder.path.iterdir()):
            if child.name in there | {LOCK, OWNER}:
                continue
            if child.is_dir():
                shutil.rmtree(child)
            else:
                child.unlink()
    if LOCK not in there:
        (folder.path / LOCK).unlink(missing_ok=True)
    for made in missing:
        made.rmdir()


def _restore(folder: RunFolder, recipe: bytes, dataset: bytes | None) -> None:
    from selfinstruct.api import Run

    if _bytes(folder.recipe_path) != recipe:
        with folder.lock():
            write_atomically(folder.recipe_path, recipe)
    if _bytes(folder.dataset / "dataset.json") != dataset:
        Run(folder.path).write_dataset()
