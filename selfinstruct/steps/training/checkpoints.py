"""Checkpoints that can be trusted.

A mark, written last, says which files belong to a checkpoint and how large they are. What a killed
process left half-written has no mark, or files of another size.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from selfinstruct.core.errors import FolderError

MARK = "complete.json"
CLOCK = "clock.json"
PREFIX = "checkpoint-"


class Mark(msgspec.Struct, frozen=True):
    """What a complete checkpoint holds: `fingerprint` of the settings and data, sizes by file."""

    fingerprint: str
    files: dict[str, int]


class Clock(msgspec.Struct, frozen=True):
    """Seconds, and kWh where they are read, that all sessions of a training took so far."""

    fingerprint: str
    seconds: float
    kwh: float | None = None


def mark_complete(checkpoint: Path, fingerprint: str) -> None:
    """Put the mark into `checkpoint`; everything in it must be written."""
    files = {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    _write(checkpoint / MARK, Mark(fingerprint, files))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises `FolderError` where a library cannot write into `folder`: its disk may be full, or it
    is not to be written.

    safetensors and PyTorch have errors of their own for that.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not any(part in text for part in _TORCH_WRITES):
            raise
        why = getattr(error, "strerror", None) or text.splitlines()[0]
        todo = "mend this" if getattr(error, "errno", None) in _NOT_ALLOWED else "make room"
        raise FolderError(
            f"{folder}: cannot be written ({why}); {todo}, then give the same command again"
        ) from error


_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
# What PyTorch says where a file cannot be written to its end.
_TORCH_WRITES = ("inline_container", "iostream", "PytorchStreamWriter")


def last_complete(folder: Path, fingerprint: str) -> Path | None:
    """The newest whole checkpoint of this training in `folder`, or None."""
    return next(iter(_sorted(folder, fingerprint)[0]), None)


def remove_torn(folder: Path, fingerprint: str) -> int:
    """Remove the checkpoints that are not whole, or of another training; returns how many.

    The trainer would count them among the ones it keeps, and write later into a folder that holds
    half of an older one.
    """
    torn = _sorted(folder, fingerprint)[1]
    for checkpoint in torn:
        shutil.rmtree(checkpoint)
    return len(torn)


def _sorted(folder: Path, fingerprint: str) -> tuple[list[Path], list[Path]]:
    """The whole checkpoints, newest first, and the others."""
    found = sorted(folder.glob(f"{PREFIX}*"), key=_step, reverse=True)
    whole = [path for path in found if _is_whole(path, fingerprint)]
    return whole, [path for path in found if path not in whole]


def read_clock(folder: Path) -> Clock | None:
    """The time taken so far, or None."""
    try:
        return msgspec.json.decode((folder / CLOCK).read_bytes(), type=Clock)
    except (OSError, msgspec.DecodeError):
        return None


def write_clock(folder: Path, fingerprint: str, seconds: float, kwh: float | None = None) -> None:
    """Note the time taken so far, so that a killed process's hours are billed too."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / CLOCK, Clock(fingerprint, seconds, kwh))


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix(PREFIX)
    return int(number) if number.isdigit() else -1


def _is_whole(checkpoint: Path, fingerprint: str) -> bool:
    try:
        mark = msgspec.json.decode((checkpoint / MARK).read_bytes(), type=Mark)
        sizes = {name: (checkpoint / name).stat().st_size for name in mark.files}
    except (OSError, msgspec.DecodeError):
        return False
    return mark.fingerprint == fingerprint and sizes == mark.files


def _write(path: Path, value: msgspec.Struct) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
