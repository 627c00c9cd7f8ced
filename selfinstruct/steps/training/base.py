"""Where the student's base is: a folder of safetensors on this machine, whatever was named."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import yaml

from selfinstruct.core.errors import MissingDependency, UserError
from selfinstruct.steps.model_config import check_files, first_line
from selfinstruct.steps.model_files import folder_mark, weight_files
from selfinstruct.steps.privacy import Policy, hub_is_off
from selfinstruct.steps.teachers.models import KNOWN, cache_folder, resolve
from selfinstruct.steps.training.gguf_base import convert_gguf, read_source

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
# Everything but the copies of the same weights in other formats.
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"]
# These GGUF files do not say themselves which model on the Hub they were made from.
ORIGINS = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}

# The keys that errors name where what is looked for is distillation's teacher.
TEACHER_KEYS = {
    "student.base": "student.distillation.teacher",
    "student.revision": "student.distillation.revision",
}


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A base that is ready to load.

    `name` is what the recipe says, `hub_id` the model's name on the Hub where it is known,
    `license` its identifier there ("" if unknown). `identity` changes when the files do. `commit`
    is what was loaded from the Hub, "" for what lies on this machine otherwise.
    """

    name: str
    folder: Path
    identity: str
    hub_id: str = ""
    license: str = ""
    commit: str = ""


def find_base(name: str, policy: Policy, revision: str | None = None) -> Base:
    """The base called `name`: a model folder, a GGUF file, a shipped name, or a Hub id.

    Args:
        name: `student.base` of the recipe.
        policy: the run's privacy. A local one fetches nothing, and neither does the Hub's own
            offline switch; what is in the caches of this machine is used in every case.
        revision: a commit, tag or branch of the Hub's; its main branch where not given.

    Raises `UserError` in one line where there is no such base or revision.
    """
    _check_revision(name, revision)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(name, path)
    if name.lower().endswith(".gguf"):
        if not path.is_file():
            raise UserError(f"student.base: {name}: no such GGUF file")
        return _from_gguf(name, path)
    if name.lower() in KNOWN:
        return _from_gguf(name, resolve(name, policy=policy))
    if _HUB_ID.match(name):
        offline = policy.local or hub_is_off()
        folder = _from_hub(name, revision, offline=offline)
        # The Hub's cache calls a snapshot by its commit, whatever it was asked for.
        return _from_folder(name, folder, hub_id=name, commit=folder.name)
    raise _no_base(name)


def find_again(name: str, policy: Policy, commit: str) -> Base:
    """The base that a student was trained from. Raises `UserError` where it is no longer there.

    Args:
        name: what the recipe called it.
        policy: the run's privacy.
        commit: what of it was loaded from the Hub, "" where it came from elsewhere.
    """
    try:
        return find_base(name, policy, commit or None)
    except MissingDependency:
        raise
    except UserError as error:
        raise type(error)(
            f"{error}; where it was moved to, train-student RUN --base MODEL takes it from there "
            "without training again"
        ) from None


def check_base(name: str, policy: Policy, revision: str | None = None) -> None:
    """Raise what `find_base` would raise, without fetching or converting anything."""
    _check_revision(name, revision)
    path = Path(name).expanduser()
    if path.is_dir():
        _check_folder(name, path)
    elif name.lower().endswith(".gguf"):
        if not path.is_file():
            raise UserError(f"student.base: {name}: no such GGUF file")
    elif name.lower() in KNOWN:
        return
    elif not _HUB_ID.match(name):
        raise _no_base(name)
    elif policy.local or hub_is_off():
        _check_folder(name, _from_hub(name, revision, offline=True))


@contextlib.contextmanager
def speaking_of(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors about a student's base name another key of the recipe: `names` by the usual."""
    try:
        yield
    except MissingDependency:
        raise
    except UserError as error:
        said = str(error)
        for usual, other in names.items():
            said = said.replace(usual, other)
        raise type(error)(said) from None


def _no_base(name: str) -> UserError:
    return UserError(
        f"student.base: {name}: neither a model folder, a GGUF file, {' or '.join(KNOWN)}, "
        "nor a Hub id such as owner/name" + ("; student.revision says which commit" * ("@" in name))
    )


def _check_revision(name: str, revision: str | None) -> None:
    """Raises `UserError` where `revision` would be left out, `name` being of this machine."""
    if revision is None:
        return
    folder = Path(name).expanduser().is_dir()
    if folder or name.lower().endswith(".gguf") or name.lower() in KNOWN:
        what = "folder" if folder else "GGUF file"
        raise UserError(
            f"student.revision: {name} is a {what}, and revisions are the Hub's; leave it out, or "
            "give a Hub id such as owner/name"
        )


def _from_gguf(name: str, path: Path) -> Base:
    folder = convert_gguf(path, cache_folder() / "converted")
    source = read_source(folder)
    return Base(
        name=name,
        folder=folder,
        identity=folder.name,
        hub_id=ORIGINS.get(name.lower(), source.hub_id if source else ""),
        license=source.license if source else "",
    )


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raises `UserError` where a file cannot be read: a link to nowhere, another user's."""
    try:
        yield
    except OSError as error:
        where = f"{Path(error.filename).name}: " if error.filename else ""
        raise UserError(
            f"student.base: {name}: {where}cannot be read ({error.strerror or error}); mend this, "
            "or fetch it anew"
        ) from None


def _check_folder(name: str, folder: Path) -> None:
    """Raises `UserError` where `folder` holds no whole model."""
    with _readable(name):
        _look_into(name, folder)


def _look_into(name: str, folder: Path) -> None:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(
            f"student.base: {name}: is an adapter, not a model; give its base, or a merged model"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"student.base: {name}: holds no config.json, so it is no model folder")
    if not weight_files(folder):
        raise UserError(f"student.base: {name}: holds no weights (*.safetensors)")
    check_files(folder, name)


def _from_folder(name: str, folder: Path, hub_id: str = "", commit: str = "") -> Base:
    _check_folder(name, folder)
    with _readable(name):
        source = read_source(folder)
        return Base(
            name=name,
            folder=folder,
            identity=folder_mark(folder),
            hub_id=hub_id or (source.hub_id if source else ""),
            license=(source.license if source else "") or _card_license(folder),
            commit=commit,
        )


def _from_hub(name: str, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    named = name if revision is None else f"{name}@{revision}"
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_HUB_FILES, local_files_only=offline
            )
        )
    except RevisionNotFoundError:
        raise UserError(
            f"student.revision: the Hub has no commit, tag or branch {revision or 'main'} of "
            f"{name}; look at its page there, or leave the revision out"
        ) from None
    except LocalEntryNotFoundError:
        why = "not in the Hub's cache on this machine, and the Hub may not be asked"
        if not offline:
            why = "not in the Hub's cache on this machine, and the Hub cannot be reached"
        raise UserError(
            f"student.base: {named}: no such folder here, and {why}; "
            "fetch it where that is allowed, or give a model folder"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = first_line(error)
        raise UserError(f"student.base: {named}: the Hub did not give it ({why})") from None


def same_model(one: str, other: str) -> bool:
    """Whether two names of models mean the same weights: the same name or the same file."""
    if one == other:
        return True
    paths = Path(one).expanduser(), Path(other).expanduser()
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def _card_license(folder: Path) -> str:
    """The licence a model card's front matter names, or ""."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    _, opened, rest = card.read_text("utf-8", "replace").partition("---\n")
    try:
        front = yaml.safe_load(rest.partition("\n---")[0]) if opened else None
    except yaml.YAMLError:
        return ""
    found = front.get("license", "") if isinstance(front, dict) else ""
    return found if isinstance(found, str) else ""
