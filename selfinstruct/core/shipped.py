"""Where the user's files are, and the ones shipped with the package behind them.

``seeds/``, ``prompts/`` and ``recipes/`` stand at the top of a project. A path that is not there is
looked for among the shipped files: `selfinstruct/_data` in a wheel, the checkout's top otherwise.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = ("seeds", "prompts", "recipes")


def shipped_root() -> Path:
    """The folder that holds the shipped seeds/, prompts/ and recipes/."""
    packed = _PACKAGE / "_data"
    return packed if packed.is_dir() else _PACKAGE.parent


def find(path: str | Path) -> Path | None:
    """`path` as given if it exists, else the shipped file of that name, else None.

    Only paths under one of `FOLDERS` are looked for among the shipped files.
    """
    given = Path(path).expanduser()
    if given.exists():
        return given
    if not given.is_absolute() and given.parts and given.parts[0] in FOLDERS:
        packed = shipped_root() / given
        if packed.exists():
            return packed
    return None
