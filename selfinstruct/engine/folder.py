"""The run folder: one run, whole.

recipe.yaml     the resolved recipe
run.db          the ledger (SQLite); everything below is recomputed from it
run.lock        held by the process that works on the run
selection/ dataset/ student/ evaluation/ report.html
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml
from filelock import FileLock, Timeout

from selfinstruct.core.errors import FolderError
from selfinstruct.core.recipe import Recipe

LOCK, OWNER = "run.lock", "run.pid"


class RunFolder:
    """Where a run lives. The object is only paths: making one touches nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe_path = self.path / "recipe.yaml"
        self.db_path = self.path / "run.db"
        self.selection = self.path / "selection"
        self.dataset = self.path / "dataset"
        self.student = self.path / "student"
        self.evaluation = self.path / "evaluation"
        self.report = self.path / "report.html"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> RunFolder:
        """Make the folder with the resolved recipe in it; an existing run keeps its ledger.

        Raises `FolderError` where the folder cannot be written.
        """
        folder = cls(path)
        folder.save_recipe(recipe)
        return folder

    def refuse_foreign(self) -> None:
        """Raise `FolderError` where the folder is none, or holds files and no run.

        A run replaces whole folders in it, such as dataset/.
        """
        if not self.path.exists() or self.recipe_path.is_file():
            return
        if not self.path.is_dir():
            raise FolderError(f"{self.path}: is a file; give a folder for the run")
        if {child.name for child in self.path.iterdir()} - {LOCK, OWNER}:
            raise FolderError(
                f"{self.path}: holds other files and no run; give a new folder, such as "
                f"{self.path / 'run'}"
            )

    def wrote(self, path: Path) -> bool:
        """Whether `path` is one of the folders that a run writes, or in one."""
        owned = (self.dataset, self.selection, self.student, self.evaluation)
        return any(path.resolve().is_relative_to(folder.resolve()) for folder in owned)

    def save_recipe(self, recipe: Recipe) -> None:
        """Keep the resolved recipe; hold the lock. Raises `FolderError`."""
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100)
        try:
            if not self.recipe_path.exists() or self.recipe_path.read_text("utf-8") != text:
                write_atomically(self.recipe_path, text.encode())
        except OSError as error:
            raise FolderError(_cannot_write(self.path, error)) from None

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run at `path`. Raises `FolderError` if there is none."""
        folder = cls(path)
        if not folder.recipe_path.is_file():
            raise FolderError(
                f"{folder.path}: no run here (no recipe.yaml); give a folder under outputs/, or "
                "start a run with: selfinstruct generate RECIPE, or train-student RUN --data FILE"
            )
        return folder

    def recipe(self) -> Recipe:
        """The resolved recipe. Raises `FolderError` if it is no longer valid."""
        try:
            loaded = yaml.safe_load(self.recipe_path.read_text("utf-8"))
            return Recipe.model_validate(loaded)
        except (OSError, ValueError, yaml.YAMLError) as error:
            first = str(error).splitlines()[0]
            raise FolderError(f"{self.recipe_path}: not a resolved recipe ({first})") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; a second process is refused with `FolderError`.

        The lock is the operating system's: it is free again after kill -9.
        """
        held = FileLock(self.path / LOCK, timeout=0)
        owner = self.path / OWNER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held.acquire()
        except Timeout:
            raise FolderError(
                f"{self.path}: in use by another process{_named(owner)}; "
                "wait for it to end, or stop it, then give the same command again"
            ) from None
        except OSError as error:
            raise FolderError(_cannot_write(self.path, error)) from None
        try:
            with contextlib.suppress(OSError):  # a full disk must not hide the real message
                owner.write_text(str(os.getpid()), "utf-8")
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink(missing_ok=True)
            held.release()

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """A stage's summary file, or None if the stage is not done. Raises `FolderError`."""
        if not path.is_file():
            return None
        try:
            loaded = orjson.loads(path.read_bytes())
        except ValueError:
            raise FolderError(f"{path}: not JSON; remove it and run the stage again") from None
        if not isinstance(loaded, dict):
            raise FolderError(f"{path}: not a JSON object; remove it and run the stage again")
        return loaded


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def _named(owner: Path) -> str:
    try:
        return f" (pid {owner.read_text('utf-8').strip()})"
    except OSError:
        return ""


def _cannot_write(path: Path, error: OSError) -> str:
    return f"{path}: cannot write here ({error.strerror}); give another folder, or mend this"
