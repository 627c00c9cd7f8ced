"""A parcel: the files that go into one repository, its card made ready, and what the scan says.

Of a dataset folder everything goes but its bookkeeping, and the rejected candidates unless asked
for. Of a student's folder the merged model goes to the top, where `from_pretrained` looks, and its
adapter below; checkpoints, optimizer states and trainer files stay. Links and hidden files stay.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from selfinstruct.core.types import Passage, SeedTask
from selfinstruct.steps.publishing import card_links
from selfinstruct.steps.publishing.hub import LocalFile, RepoType
from selfinstruct.steps.publishing.scan import (
    Finding,
    Scan,
    can_scan,
    scan_file,
    scan_rows,
    text_rows,
)

What = Literal["dataset", "student"]
CARD = "README.md"

_BOOKKEEPING = frozenset({"dataset.json", "training.json"})
# What a trainer leaves beside a model. training_args.bin is a pickle with this machine's paths.
_TRAINER = ("optimizer.", "scheduler.", "rng_state", "trainer_state", "training_args", "events.out")
_DATASET_EXPORTS = frozenset({"alpaca.json", "train.jsonl", "test.jsonl"})
_MODEL_OWN = frozenset({"config.json", "generation_config.json", "adapter_config.json"})


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What would go into one repository.

    `repo_id` is "" where the recipe names none. `left_out` are files that stay, each with the
    reason; `unscanned` are files that go and hold no text. `missing` has to be settled first,
    `refusals` stop publishing whatever is allowed, `findings` unless they are allowed, `notes`
    stop nothing.
    """

    what: What
    repo_id: str
    private: bool
    files: list[LocalFile]
    left_out: list[str]
    unscanned: list[str]
    findings: list[Finding]
    missing: list[str]
    refusals: list[str]
    notes: list[str]

    @property
    def repo_type(self) -> RepoType:
        """The Hub's word for it."""
        return "dataset" if self.what == "dataset" else "model"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def pack(
    root: Path,
    what: What,
    *,
    repo_id: str,
    other_repo: str | None,
    private: bool,
    include_rejected: bool,
    private_seeds: Sequence[SeedTask],
    private_passages: Sequence[Passage],
    scans: Sequence[Scan],
    say: Callable[[str], None],
) -> Parcel:
    """The parcel of a dataset folder, or of a student's.

    Args:
        root: the folder.
        what: which of the two it is.
        repo_id: where it goes; "" if that is not settled.
        other_repo: the repository of its counterpart, for the card's link.
        private: who shall see it.
        include_rejected: whether a dataset's rejected candidates go too.
        private_seeds: seeds whose records must not go.
        private_passages: passages; that a record was written from one is a finding.
        scans: what every text is looked at with.
        say: called with a line for each file that is scanned.

    Raises `UserError` where a card or a data file cannot be read.
    """
    left_out: list[str] = []
    notes: list[str] = []
    refusals: list[str] = []
    missing = _not_there(root, what)
    found = {} if missing else dict(_collect(root, what, include_rejected, left_out))
    card = found.pop(CARD, None)
    files = [local_file(path, source) for path, source in found.items()]
    if card is not None:
        ready = _ready(card, what, repo_id, other_repo, [*found, CARD], notes)
        refusals += card_links.card_problems(ready, str(card), [*found, CARD])
        files.insert(0, local_file(CARD, card, ready.text))
    elif not missing:
        refusals.append(f"{root}: no {CARD} (the card); build it again")
    refusals += _private_rows(files, private_seeds)
    findings = [*_from_private(files, private_passages), *_scanned(files, scans, say)]
    notes += _paths_of_this_machine(files)
    for number, named in ((len(private_seeds), "examples"), (len(private_passages), "passages")):
        if what == "student" and number:
            notes.append(
                f"it was trained on {number} private {named}, or on records written after them, "
                "and a model can repeat what it was trained on"
            )
    return Parcel(
        what=what,
        repo_id=repo_id,
        private=private,
        files=files,
        left_out=left_out,
        unscanned=[file.path for file in files if not can_scan(Path(file.path))],
        findings=findings,
        missing=missing,
        refusals=refusals,
        notes=notes,
    )


def local_file(path: str, source: Path, text: str | None = None) -> LocalFile:
    """`source`, or `text` in its place, to be published as `path`; hashed."""
    if text is not None:
        data = text.encode()
        size, digest = len(data), hashlib.sha256(data).hexdigest()
    else:
        with source.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        size = source.stat().st_size
    return LocalFile(path=path, size=size, sha256=digest, source=str(source), text=text)


def is_ours(what: What, path: str) -> bool:
    """Whether an earlier publication put the remote file `path` there, so that it may go.

    Everything else in a repository is its owner's.
    """
    if what == "dataset":
        folder = path.partition("/")[0]
        shard = folder in ("data", "messages", "rejected") and path.endswith(".parquet")
        return shard or path in _DATASET_EXPORTS
    weights = path.endswith((".safetensors", ".safetensors.index.json"))
    return weights or path.startswith("adapter/") or path in _MODEL_OWN


def _not_there(root: Path, what: What) -> list[str]:
    if what == "dataset":
        done = (root / "dataset.json").is_file()
        return [] if done else [f"{root}: no dataset; run: selfinstruct export"]
    model = (root / "merged").is_dir() or (root / "adapter").is_dir()
    done = model and (root / "training.json").is_file()
    return [] if done else [f"{root}: no student; run: selfinstruct train-student"]


def _collect(
    root: Path, what: What, include_rejected: bool, left_out: list[str]
) -> Iterator[tuple[str, Path]]:
    """What is published, as (path in the repository, file); later ones replace earlier ones."""

    def under(folder: Path) -> Iterator[tuple[str, Path]]:
        for file in sorted(folder.rglob("*")):
            if file.is_dir() and not file.is_symlink():
                continue
            path = file.relative_to(folder).as_posix()
            reason = _stays(path, file, include_rejected)
            if reason:
                left_out.append(f"{file.relative_to(root).as_posix()} ({reason})")
            else:
                yield path, file

    if what == "dataset":
        yield from under(root)
        return
    merged, adapter = root / "merged", root / "adapter"
    yield from under(merged if merged.is_dir() else adapter)
    if merged.is_dir() and adapter.is_dir():
        # One card a repository, at the top.
        yield from ((f"adapter/{path}", file) for path, file in under(adapter) if path != CARD)
    if (root / CARD).is_file():
        yield CARD, root / CARD


def _stays(path: str, file: Path, include_rejected: bool) -> str:
    """Why this file is not published, or "" if it is."""
    parts = path.split("/")
    if file.is_symlink():
        return "a link"
    if any(part.startswith(".") or part.endswith((".tmp", "~")) for part in parts):
        return "hidden or temporary"
    if any(part.startswith("checkpoint") for part in parts):
        return "a checkpoint"
    if path in _BOOKKEEPING or parts[-1].startswith(_TRAINER):
        return "bookkeeping"
    if parts[0] == "rejected" and not include_rejected:
        return "rejected candidates go only with --include-rejected"
    return ""


def _ready(
    path: Path, what: What, repo_id: str, other: str | None, paths: Collection[str],
    notes: list[str],
) -> card_links.Card:  # fmt: skip
    card = card_links.read_card(path.read_text("utf-8"), str(path))
    if what == "dataset":
        ready = card_links.ready_dataset_card(card, repo_id, other, paths)
    else:
        ready = card_links.ready_model_card(card, repo_id, other)
        base = card.front.get("base_model")
        if base != ready.front.get("base_model"):
            notes.append(f"base_model {base!r} is no Hub id: left out of the published card")
    if ready.front.get("license") == "other":
        key = "dataset.license" if what == "dataset" else "the base's own license"
        notes.append(f"the card says license: other; settle one ({key})")
    return ready


def _scanned(
    files: Sequence[LocalFile], scans: Sequence[Scan], say: Callable[[str], None]
) -> Iterator[Finding]:
    for file in files:
        if not can_scan(Path(file.path)):
            continue
        say(f"scanning {file.path}")
        for scan in scans:
            if file.text is not None:
                yield from scan_rows(text_rows(file.text), scan, file.path)
            else:
                yield from scan_file(Path(file.source), scan, file.path)


def _private_rows(files: Sequence[LocalFile], private_seeds: Sequence[SeedTask]) -> list[str]:
    """A refusal where rows are the private examples themselves."""
    private = {seed.id for seed in private_seeds}
    held: set[str] = set()
    for file in files:
        if private and file.path.endswith(".parquet"):
            held |= private & _ids(file.source)
    if not held:
        return []
    return [
        f"the dataset holds {len(held)} examples of private sources ({_some(sorted(held))}): set "
        "dataset.include_seeds: false, run selfinstruct export, then publish; where they are the "
        "whole dataset, it stays here"
    ]


def _from_private(
    files: Sequence[LocalFile], private_passages: Sequence[Passage]
) -> Iterator[Finding]:
    """A finding for each file with records that were written from private passages."""
    private = {passage.id for passage in private_passages}
    for file in files:
        if not private or not file.path.endswith(".parquet"):
            continue
        count = sum(not private.isdisjoint(parents) for parents in _parents(file.source))
        if count:
            yield Finding(
                file=file.path,
                record=f"{count:,} record{'' if count == 1 else 's'}",
                field="parents",
                kind="written from a private document",
                masked="they say what it says",
            )


def _parents(path: str) -> list[list[str]]:
    """The parents of each record of a file; none where it has no such column."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        if "parents" not in file.schema_arrow.names:
            return []
        column = file.read(columns=["parents"])["parents"].to_pylist()
    return [parents or [] for parents in column]


def _ids(path: str) -> set[str]:
    import pyarrow.parquet

    return set(pyarrow.parquet.read_table(path, columns=["id"])["id"].to_pylist())


def _paths_of_this_machine(files: Sequence[LocalFile]) -> list[str]:
    """Notes on settings and cards that name the user's home folder."""
    home = str(Path.home()).encode()
    notes = []
    for file in files:
        if home.count(os.sep.encode()) < 2 or not file.path.endswith((".json", ".md")):
            continue
        text = Path(file.source).read_bytes() if file.text is None else file.text.encode()
        if home + os.sep.encode() in text:
            notes.append(f"{file.path} names a folder of this machine ({home.decode()})")
    return notes


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
