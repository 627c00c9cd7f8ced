"""What tells a model's files from others, without reading gigabytes.

A file's mark is its size and some of its bytes: all of a small one, and of a large one its
beginning (where safetensors names the tensors), its end, and pieces all over it. A copy has the
same mark. Training changes weights everywhere, so it shows; an edit of a few numbers by hand may
not, and neither may one piece of less than a thousandth of a large file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from selfinstruct.core.ids import fingerprint

WHOLE = 2 << 20  # bytes; a file up to this size is read whole
PIECES, PIECE = 512, 4096
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
SETTINGS = ("*.json", "*.jinja", "tokenizer*", "*.model", "vocab*", "merges*", "*/config.json")


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder that hold weights, in order."""
    return sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})


def folder_mark(folder: Path) -> str:
    """The mark of a model folder: of weights, settings and tokenizer by name. Raises `OSError`."""
    others = {path for pattern in SETTINGS for path in folder.glob(pattern) if path.is_file()}
    return _mark(sorted({*weight_files(folder), *others}))


def model_mark(name: str) -> str:
    """The mark of the model folder or file called `name`; "" where there is none here.

    What is on the Hub, or shipped under a name, is told by that name.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return folder_mark(path)
        return _mark([path]) if path.is_file() else ""
    except OSError:
        return ""


def _mark(paths: Iterable[Path]) -> str:
    return fingerprint([[path.name, path.stat().st_size, _digest(path)] for path in paths])


def _digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(WHOLE))
        if size > WHOLE:
            for piece in range(1, PIECES + 1):
                file.seek(max(WHOLE, piece * size // PIECES - PIECE))
                digest.update(file.read(PIECE))
    return digest.hexdigest()
