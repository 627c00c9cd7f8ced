"""From the path a user gives to the files that hold data."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from selfinstruct.core.shipped import find
from selfinstruct.steps.seeds.faults import NAMES_SHOWN, fault, quoted

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
# Written next to data by `datasets` and the Hub; never data.
NOT_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"})
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a drive has one letter
HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval")


def data_files(path: Path, *, held_out: bool = False) -> list[Path]:
    """The files to read for `path`, in order.

    A file is itself. In a folder it is those of a `datasets` save, else of ``data/`` (the Hub's
    layout), else of the folder. Where some belong to a split named train, those of the held-out
    splits are left, unless `held_out`: examples out of a test set would leak it. Raises
    `SeedError`.
    """
    found = find(path)
    if found is None:
        raise fault(str(path), _missing(path))
    if found.is_file():
        return [found]
    if not found.is_dir():  # what is read to tell the kind of data would be gone from it
        raise fault(str(path), "is a pipe or device; data is read more than once: give a file")
    try:
        files = _in_folder(found, held_out)
    except OSError as error:
        raise fault(str(path), f"cannot be read: {error.strerror or error}") from error
    if not files:
        names = sorted(child.name for child in found.iterdir())
        raise fault(
            str(path),
            "holds no data: looked for a saved dataset, data/ and *.jsonl, *.json, *.csv, "
            f"*.parquet; found {quoted(names)}",
        )
    return files


def _in_folder(folder: Path, held_out: bool) -> list[Path]:
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(child for child in folder.iterdir() if (child / "state.json").is_file())
        return [file for split in _to_learn_from(splits, held_out) for file in _saved(split)]
    if (folder / "state.json").is_file():
        return _saved(folder)
    inner = folder / "data"
    return (_data_in(inner, held_out) if inner.is_dir() else []) or _data_in(folder, held_out)


def _data_in(folder: Path, held_out: bool) -> list[Path]:
    files = [
        child
        for child in sorted(folder.iterdir())
        if child.suffix.lower() in DATA_SUFFIXES
        and child.name not in NOT_DATA
        and not child.name.startswith(".")
        and child.is_file()
    ]
    return _to_learn_from(files, held_out)


def _to_learn_from(splits: list[Path], held_out: bool) -> list[Path]:
    """Without the held-out ones, if one of `splits` (files or folders) is a train split."""
    if held_out or not any(_begins(split.name, ("train",)) for split in splits):
        return splits
    return [split for split in splits if not _begins(split.name, HELD_OUT)]


def _begins(name: str, words: tuple[str, ...]) -> bool:
    """Whether the first word of `name` ("test-00000-of-00001.parquet") is one of `words`."""
    word = name.lower()
    for mark in "-_.":
        word = word.split(mark, 1)[0]
    return word in words


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a dataset saved with `save_to_disk`, as its state.json lists them."""
    state = folder / "state.json"
    try:
        listed = [item["filename"] for item in json.loads(state.read_text("utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise fault(str(state), "is no state of a saved dataset") from error
    return [folder / name for name in listed]


def _missing(path: Path) -> str:
    """What to say of a path that is not there: the nearest name, or what is there instead."""
    if _ADDRESS.match(str(path)):
        return (
            "is an address, and files of this machine are read; fetch it first, and give the file"
        )
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    try:
        children = sorted(child.name for child in parent.iterdir())
    except OSError:
        return "no such file or folder"
    if parent != path.parent:
        shown = ", ".join(name for name in children[:NAMES_SHOWN] if not name.startswith("."))
        fetched = (
            f"; a dataset of the Hub is fetched first: hf download {path} --repo-type dataset "
            f"--local-dir {path.name}"
        )
        return (
            f"no such file: there is no folder {path.parent}; {parent} holds {shown or 'nothing'}"
            + (fetched if _may_be_of_hub(path) else "")
        )
    near = difflib.get_close_matches(path.name, children, n=1)
    if near:
        return f"no such file; did you mean {parent / near[0]}?"
    data = [name for name in children if Path(name).suffix.lower() in DATA_SUFFIXES]
    if not data:
        return f"no such file; {parent.absolute()} holds no data files"
    return f"no such file; the data files in {parent} are {quoted(data)}"


def _may_be_of_hub(path: Path) -> bool:
    """Whether `path` looks like the id of a dataset: an owner and a name."""
    return len(path.parts) == 2 and path.suffix.lower() not in DATA_SUFFIXES
