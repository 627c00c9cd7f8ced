"""The dataset folder of a run: what is in it, and how it is written.

    outputs/<run>/dataset/
        README.md                      the card, with the front matter that names the files
        data/train-*, data/test-*      config "default"; messages/* and rejected/* likewise
        alpaca.json train.jsonl test.jsonl     no alpaca.json where some have several turns
        dataset.json                   what was written, last of all

The folder is written beside the old one and swapped in by renaming, so there is always a whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from selfinstruct.core.errors import FolderError
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.steps import tables
from selfinstruct.steps.publishing.hub_card import split_file
from selfinstruct.steps.swap import replacing
from selfinstruct.steps.tables import Row

SUMMARY = "dataset.json"


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """dataset.json: what the dataset folder holds.

    `train` and `held_out` count records; `human` of the training ones are seeds. `seeds` counts the
    run's seed tasks, `private_seeds` those marked private, `not_selected` the kept records that the
    recipe's selection left out, `faulty` the rows of given data that are no whole records, of which
    `faults` names the first. `fingerprint` is that of the settings and records behind the data,
    `card` that of everything else the card tells. `files` maps each file's path to its SHA-256.
    """

    train: int
    held_out: int
    rejected: int
    beyond_target: int
    moved_to_train: int
    human: int
    seeds: int
    private_seeds: int
    license: str
    fingerprint: str
    card: str
    files: dict[str, str]
    not_selected: int = 0
    faulty: int = 0
    faults: list[str] = []


def write_folder(
    folder: RunFolder,
    marks: tuple[str, str],
    write: Callable[[Path], DatasetSummary],
    *,
    force: bool,
) -> DatasetSummary:
    """Have `write` fill the dataset folder, unless it is up to date.

    Args:
        folder: a run folder, locked by the caller.
        marks: fingerprints of the data and of the card, as `DatasetSummary` has them.
        write: writes all but the summary into an empty folder, and returns it.
        force: write even if it is up to date.

    Raises `FolderError` where it cannot be written.
    """
    try:
        with replacing(folder.dataset) as new:
            done = None if force else read_summary(folder)
            if done and (done.fingerprint, done.card) == marks:
                return done
            summary = write(new)
            write_json(new / SUMMARY, msgspec.to_builtins(summary))
    except OSError as error:
        raise FolderError(
            f"{folder.dataset}: cannot be written ({error.strerror or error}); the earlier "
            "dataset, if there was one, is still there"
        ) from error
    return summary


def read_summary(folder: RunFolder) -> DatasetSummary | None:
    """What the dataset folder holds, or None where it is missing, incomplete or of another kind."""
    found = folder.read_json(folder.dataset / SUMMARY)
    try:
        summary = msgspec.convert(found, DatasetSummary)
    except msgspec.ValidationError:
        return None
    whole = all((folder.dataset / name).is_file() for name in summary.files)
    return summary if whole else None


def write_splits(
    new: Path, data: Mapping[str, list[Row]], system: str, more: Sequence[str] = ()
) -> dict[str, dict[str, int]]:
    """Write the splits' files and the plain copies into `new`; rows by config and split.

    Args:
        new: the folder.
        data: rows by split, none of them empty, `train` among them.
        system: the system message of conversations without one.
        more: columns past the usual ones, see `tables.schema`.
    """
    files: dict[str, dict[str, int]] = {"default": {}, "messages": {}}
    for name, rows in data.items():
        talks = (tables.messages_row(row, system) for row in rows)
        tables.write_parquet(new / split_file("default", name), "default", rows, more)
        tables.write_parquet(new / split_file("messages", name), "messages", talks)
        (new / f"{name}.jsonl").write_bytes(tables.to_jsonl(rows, system))
        files["default"][name] = files["messages"][name] = len(rows)
    if not any(row.get(tables.MESSAGES) for row in data["train"]):
        (new / "alpaca.json").write_bytes(tables.to_alpaca(data["train"], system))
    return files


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in `folder`, by path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
