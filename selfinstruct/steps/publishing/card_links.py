"""A dataset or model card made ready for its repository: checked, and linked to its counterpart.

The card in the run folder stays as its stage wrote it. What goes out names its own repository where
the card said ``PATH_OR_REPOSITORY``, names the other repository, and lists only configs whose files
are published. The front matter's fields are those of huggingface_hub's DatasetCardData and
ModelCardData.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import yaml

from selfinstruct.core.errors import UserError

_PARTS = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*\r?\n(.*)\Z", re.DOTALL)
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
PLACE = "PATH_OR_REPOSITORY"


class Card(NamedTuple):
    """A card: its front matter, and the text below."""

    front: dict[str, Any]
    body: str

    @property
    def text(self) -> str:
        """The file's content."""
        front = yaml.safe_dump(self.front, sort_keys=False, allow_unicode=True)
        return f"---\n{front}---\n{self.body}"


def is_repo_id(name: str) -> bool:
    """Whether `name` is ``owner/name`` as the Hub takes it."""
    bad = "--" in name or ".." in name or name.endswith((".git", "-", "."))
    return _REPO_ID.fullmatch(name) is not None and not bad


def read_card(text: str, path: str) -> Card:
    """The card in `text`. Raises `UserError` naming `path` where it has no YAML front matter."""
    parts = _PARTS.match(text)
    if parts is None:
        raise UserError(
            f"{path}:1: a card begins with YAML between two '---' lines; build it again"
        )
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        raise UserError(f"{path}:{line}: the card's front matter is not YAML") from None
    if not isinstance(front, dict):
        raise UserError(f"{path}:2: the card's front matter is no list of 'key: value' lines")
    return Card(front, parts[2])


def ready_dataset_card(
    card: Card, repo: str, model_repo: str | None, paths: Collection[str]
) -> Card:
    """The dataset card for `repo`, whose files are `paths`."""
    front = dict(card.front)
    configs = front.get("configs")
    gone: list[str] = []
    if isinstance(configs, list):
        front["configs"] = [entry for entry in configs if not _unpublished(entry, paths)]
        gone = [str(e.get("config_name")) for e in configs if _unpublished(e, paths)]
    body = card.body.replace(PLACE, repo)
    for name in gone:
        body = re.sub(rf'^.*load_dataset\("[^"]*", "{re.escape(name)}"\).*\n', "", body, flags=re.M)
        body = f"{body.rstrip()}\n\nThe config `{name}` is not published.\n"
    if model_repo:
        body = f"{body.rstrip()}\n\nA model trained on it: [{model_repo}](/{model_repo})\n"
    return Card(front, body)


def ready_model_card(card: Card, repo: str, dataset_repo: str | None) -> Card:
    """The model card for `repo`. A base that is no Hub id is a path of this machine: left out."""
    front = dict(card.front)
    bases = front.get("base_model")
    kept = [base for base in _listed(bases) if is_repo_id(base)]
    front.pop("base_model", None)
    if kept:
        front["base_model"] = kept[0] if isinstance(bases, str) else kept
    body = card.body.replace(PLACE, repo)
    if dataset_repo:
        others = [name for name in _listed(front.get("datasets")) if is_repo_id(name)]
        front["datasets"] = list(dict.fromkeys([*others, dataset_repo]))
        body = f"{body.rstrip()}\n\nIts training data: [{dataset_repo}](/datasets/{dataset_repo})\n"
    return Card(front, body)


def card_problems(card: Card, path: str, paths: Collection[str]) -> list[str]:
    """What makes the Hub or `load_dataset` refuse this card; empty where it is sound."""
    problems = []
    if not isinstance(card.front.get("license"), str):
        problems.append(f"{path}: the front matter names no license")
    configs = card.front.get("configs")
    if configs is not None and not isinstance(configs, list):
        problems.append(f"{path}: 'configs' in the front matter is no list")
    for entry in configs if isinstance(configs, list) else []:
        for pattern in _patterns(entry):
            if not any(fnmatchcase(name, pattern) for name in paths):
                name = entry.get("config_name") if isinstance(entry, dict) else entry
                problems.append(f"{path}: config {name!r} names {pattern}, which is no file of it")
    return problems


def _unpublished(entry: Any, paths: Collection[str]) -> bool:
    """Whether none of a config's files are published."""
    patterns = _patterns(entry)
    return bool(patterns) and not any(
        fnmatchcase(path, pattern) for path in paths for pattern in patterns
    )


def _patterns(entry: Any) -> list[str]:
    """The paths that a config names: one, several, or several by split."""
    files = entry.get("data_files") if isinstance(entry, dict) else None
    found: list[str] = []
    for item in files if isinstance(files, list) else [files]:
        found += _listed(item.get("path") if isinstance(item, dict) else item)
    return found


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
