"""Calls to a Hub (huggingface.co, or a server of one's own that speaks its API).

What the official client leaves to its caller is done here: a repository's visibility is read back
before a byte of content goes out, every address is checked before it is contacted (redirects and
the upload addresses that the server names included), nothing is sent that was not asked for
(telemetry, the token of another login), and what arrived is compared with what was sent.

The HTTP API is the one of huggingface_hub 2.4; large files go by git-lfs's batch protocol, not Xet,
whose transfers cannot be checked for where they go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from selfinstruct.core.errors import MissingDependency, UserError
from selfinstruct.steps.privacy import follow_environment
from selfinstruct.steps.publishing.hub_faults import one_line

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

RepoType = Literal["dataset", "model"]
CheckUrl = Callable[[str], None]
Sent = Callable[[str, int], None]

PUBLIC_HUB = "https://huggingface.co"
CONNECT_S = 20.0
SILENCE_S = 120.0


class LocalFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to publish: where it goes, its size in bytes and its hash.

    `source` is the file here. Where `text` is given, it goes out in its place (a card made ready).
    """

    path: str
    size: int
    sha256: str
    source: str
    text: str | None = None


class RemoteFile(msgspec.Struct, frozen=True):
    """A file as a repository lists it: git's blob hash, and the content's SHA-256 if it is LFS."""

    blob: str
    sha256: str | None


class State(msgspec.Struct, frozen=True):
    """A repository's visibility, its newest commit, and its files by path."""

    private: bool
    commit: str
    files: dict[str, RemoteFile]


class Difference(msgspec.Struct, frozen=True):
    """What a repository lacks of what shall be there, and what it has too much."""

    changed: list[LocalFile]
    stale: list[str]


class Hub:
    """One Hub, one token. Made by `open_hub`; every method raises `UserError` in one line."""

    def __init__(self, api: HfApi) -> None:
        self.api = api

    def ensure_repo(self, repo_id: str, repo_type: RepoType, private: bool) -> State:
        """The repository as it stands, created if there is none.

        Where `private` is asked for and the repository is not, this refuses: the Hub ignores the
        wish for a repository that exists already.
        """
        with one_line(self.api.endpoint, repo_id):
            if not self.api.repo_exists(repo_id, repo_type=repo_type):
                self.api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        state = self.state(repo_id, repo_type)
        if private and not state.private:
            raise UserError(
                f"{repo_id} exists at {self.api.endpoint} and is public, but the recipe says "
                "private: make it private in its settings, name another repository, or give "
                "--public"
            )
        return state

    def state(self, repo_id: str, repo_type: RepoType) -> State:
        """The repository's visibility, newest commit and files. Unclear counts as public."""
        from huggingface_hub import RepoFile

        with one_line(self.api.endpoint, repo_id):
            info = self.api.repo_info(repo_id, repo_type=repo_type)
            commit = info.sha or "main"
            tree = self.api.list_repo_tree(
                repo_id, repo_type=repo_type, revision=commit, recursive=True
            )
            files = {
                entry.path: RemoteFile(entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
                for entry in tree
                if isinstance(entry, RepoFile)
            }
        return State(private=getattr(info, "private", None) is True, commit=commit, files=files)

    def commit(
        self,
        repo_id: str,
        repo_type: RepoType,
        change: Difference,
        *,
        parent: str,
        message: str,
        sent: Sent | None = None,
    ) -> str:
        """Upload what changed and delete what is stale, as one commit on `parent`; its hash.

        `sent` is called with (path, bytes) as each file has arrived.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        deletions = [CommitOperationDelete(path_in_repo=path) for path in change.stale]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [*deletions]
        with one_line(self.api.endpoint, repo_id):
            for file in change.changed:
                addition = CommitOperationAdd(
                    file.path, file.source if file.text is None else file.text.encode()
                )
                # Hashed for the plan: the server refuses the file if it has changed since.
                addition.upload_info.sha256 = bytes.fromhex(file.sha256)
                self.api.preupload_lfs_files(
                    repo_id, [addition], repo_type=repo_type, free_memory=False
                )
                operations.append(addition)
                if sent:
                    sent(file.path, file.size)
            info = self.api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                repo_type=repo_type,
                parent_commit=parent if len(parent) == 40 else None,
            )
        return info.oid


def difference(
    files: list[LocalFile], remote: dict[str, RemoteFile], ours: Callable[[str], bool]
) -> Difference:
    """What has to be sent, and which remote files that are `ours` are no longer wanted."""
    wanted = {file.path for file in files}
    changed = [file for file in files if not same(file, remote.get(file.path))]
    stale = sorted(path for path in remote if path not in wanted and ours(path))
    return Difference(changed, stale)


def same(file: LocalFile, remote: RemoteFile | None) -> bool:
    """Whether the remote file has the content of `file`."""
    if remote is None:
        return False
    if remote.sha256 is not None:
        return remote.sha256 == file.sha256
    return remote.blob == git_blob(file)


def git_blob(file: LocalFile) -> str:
    """Git's hash of the file as a blob: SHA-1 over ``blob <size>``, a zero byte and the content."""
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    if file.text is not None:
        digest.update(file.text.encode())
    else:
        with Path(file.source).open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def open_hub(
    endpoint: str, token: str, check_url: CheckUrl, *, use_proxies: bool = True
) -> Iterator[Hub]:
    """A `Hub` at `endpoint`; `check_url` is called with every address before it is contacted.

    huggingface_hub's client and settings are the process's own, so they are put back at the end.
    Proxies of the environment are left out with `use_proxies=False`. Raises `MissingDependency`
    without huggingface_hub, and what `check_url` raises.
    """
    try:
        import httpx2
        from huggingface_hub import HfApi, constants, set_client_factory
        from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook
        from huggingface_hub.utils.tqdm import (
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )
    except ModuleNotFoundError as error:
        package = "huggingface_hub" if error.name is None else error.name.split(".")[0]
        raise MissingDependency(package, "publish", "publishing") from None

    def checked(request: httpx2.Request) -> None:
        check_url(str(request.url))
        hf_request_event_hook(request)

    def client() -> httpx2.Client:
        return httpx2.Client(
            event_hooks={"request": [checked]},
            follow_redirects=True,
            timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S),
            trust_env=use_proxies,
        )

    settings = {
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
    }
    follow_environment()
    before = {name: getattr(constants, name) for name in settings}
    quiet = are_progress_bars_disabled()
    _set(constants, settings)
    disable_progress_bars()
    set_client_factory(client)
    check_url(endpoint)
    try:
        yield Hub(HfApi(endpoint=endpoint, token=token, library_name="selfinstruct"))
    finally:
        set_client_factory(default_client_factory)
        _set(constants, before)
        if not quiet:
            enable_progress_bars()


def _set(module: Any, values: dict[str, bool]) -> None:
    for name, value in values.items():
        setattr(module, name, value)
