"""What the fake Hub holds and answers: repositories in memory, and the Hub's API over them.

The part of the HTTP API that huggingface_hub 2.4 publishes with: whoami, creating a repository,
its information and files, preupload, git-lfs's batch protocol, commits and downloads. `fake_hub`
serves it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".gguf", ".arrow", ".model")
LFS_SIZE = 10 << 20  # a larger file is LFS whatever its name, as on the real Hub
Reply = tuple[dict[str, str], bytes]  # headers and body


class Call(NamedTuple):
    """One request as it came in; `user` is "" without a known token."""

    method: str
    path: str
    user: str


class Blob(NamedTuple):
    """A file's content, git's hash of it, and whether it is kept as LFS."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        """The content's SHA-256, which is its LFS oid."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git(self) -> str:
        """Git's blob hash of the content, or of the pointer where it is LFS."""
        kept = self.content
        if self.lfs:
            kept = f"version https://git-lfs\noid {self.sha256}\nsize {len(kept)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(kept) + kept, usedforsecurity=False).hexdigest()


@dataclass
class Repo:
    """A repository: who sees it, its commits in order, the files of each, and tags of some."""

    private: bool
    commits: list[str] = field(default_factory=list)
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Blob]:
        """The files of the newest commit."""
        return self.trees[self.commits[-1]]

    def add_commit(self, files: dict[str, Blob]) -> str:
        """Make `files` the newest commit and return its hash."""
        said = f"{len(self.commits)}:{sorted((p, b.git) for p, b in files.items())}"
        oid = hashlib.sha1(said.encode(), usedforsecurity=False).hexdigest()
        self.commits.append(oid)
        self.trees[oid] = files
        return oid


@dataclass
class HubState:
    """What a fake Hub knows; `calls`, `repos` and `objects` are for tests to look at.

    The fields from `ignores_private` on are flaws that a test can switch on.
    """

    tokens: dict[str, str] = field(default_factory=lambda: {"hf_test": "owner"})
    """User by token; a user writes in the namespace of that name."""
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    """By ("dataset" or "model", id)."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Uploaded LFS content by SHA-256."""
    ignores_private: bool = False
    """What is created is public, whatever was asked for."""
    ignored: set[str] = field(default_factory=set)
    """Paths that the repository's .gitignore swallows."""
    upload_base: str = ""
    """The address that uploads are sent to instead of this server."""
    failing: dict[str, int] = field(default_factory=dict)
    """The status to answer where the path contains this text."""

    def add_repo(self, repo_type: str, repo_id: str, *, private: bool) -> Repo:
        """A repository that is there already, with the first commit that the Hub makes."""
        repo = Repo(private)
        repo.add_commit({".gitattributes": Blob(b"*.parquet filter=lfs\n", lfs=False)})
        self.repos[repo_type, repo_id] = repo
        return repo

    def writes(self) -> list[Call]:
        """The calls that carried content or changed something."""
        marks = ("/commit/", "/lfs/", "/api/repos/create")
        return [c for c in self.calls if c.method != "GET" and any(m in c.path for m in marks)]


class Refusal(Exception):
    """A reply other than 200: status, message and the Hub's error code."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


_API = re.compile(r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/([^/]+)(?:/(.+))?)?)?")
_FILE = re.compile(r"/(?:(dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LFS = re.compile(r"/(?:(dataset)s/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")


class Exchange:
    """One request, answered from the hub's state."""

    def __init__(self, hub: HubState, method: str, target: str, body: bytes, user: str) -> None:
        parts = urlsplit(target)
        self.hub, self.method, self.body, self.user = hub, method, body, user
        self.path, self.query = unquote(parts.path), parse_qs(parts.query)

    def answer(self) -> Reply:
        """Headers and body of a 200; raises `Refusal` for anything else."""
        for text, status in self.hub.failing.items():
            if text in self.path:
                raise Refusal(status, "so the test wants it")
        if match := _FILE.fullmatch(self.path):
            return self._file(match[1] or "model", match[2], match[3], match[4])
        return {"Content-Type": "application/json"}, json.dumps(self._json()).encode()

    def _json(self) -> Any:
        if self.path == "/api/whoami-v2":
            if not self.user:
                raise Refusal(401, "Invalid username or password.")
            return {"name": self.user, "type": "user", "orgs": []}
        if self.path == "/api/repos/create":
            return self._create()
        if self.path == "/api/validate-yaml":
            return self._validate(json.loads(self.body)["content"])
        if match := _LFS.fullmatch(self.path):
            self._writable(match[1] or "model", match[2])
            return self._batch(json.loads(self.body))
        if self.path.startswith("/lfs/") and self.method == "PUT":
            return self._take(self.path.removeprefix("/lfs/"))
        if match := _API.fullmatch(self.path):
            return self._repo_call(match[1], match[2], match[3] or "", match[4], match[5] or "")
        raise Refusal(404, f"{self.method} {self.path} is not spoken here")

    def _repo_call(self, kind: str, repo_id: str, verb: str, revision: str, path: str) -> Any:
        if verb == "preupload":
            return self._preupload(self._writable(kind, repo_id), json.loads(self.body))
        if verb == "commit":
            return self._commit(self._writable(kind, repo_id), kind, repo_id)
        repo = self._readable(kind, repo_id)
        if verb in ("", "revision"):
            return self._info(repo, repo_id, self._revision(repo, revision or "main"))
        if verb == "tree":
            return self._tree(repo, self._revision(repo, revision), path)
        if verb == "paths-info":
            wanted = self._form("paths")
            listed = self._tree(repo, self._revision(repo, revision), "", recursive=True)
            return [entry for entry in listed if entry["path"] in wanted]
        if verb == "refs":
            head = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1]}
            tags = [
                {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
                for name, commit in repo.tags.items()
            ]
            return {"branches": [head], "converts": [], "tags": tags}
        raise Refusal(404, f"{self.method} {self.path} is not spoken here")

    def _form(self, name: str) -> list[str]:
        try:
            given = json.loads(self.body)[name]
        except ValueError:
            given = parse_qs(self.body.decode())[name]
        return [given] if isinstance(given, str) else list(given)

    def _readable(self, kind: str, repo_id: str) -> Repo:
        repo = self.hub.repos.get((kind, repo_id))
        if repo is None or (repo.private and self.user != repo_id.partition("/")[0]):
            raise Refusal(401 if not self.user else 404, "Repository not found", "RepoNotFound")
        return repo

    def _writable(self, kind: str, repo_id: str) -> Repo:
        repo = self._readable(kind, repo_id)
        if self.user != repo_id.partition("/")[0]:
            raise Refusal(403, "You don't have the rights to write here")
        return repo

    @staticmethod
    def _revision(repo: Repo, revision: str) -> str:
        if revision in ("main", "HEAD"):
            return repo.commits[-1]
        revision = repo.tags.get(revision, revision)
        if revision not in repo.trees:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return revision

    def _create(self) -> Any:
        wish = json.loads(self.body)
        kind = wish.get("type") or "model"
        owner = wish.get("organization") or self.user
        if not self.user:
            raise Refusal(401, "Invalid credentials in Authorization header")
        if owner != self.user:
            raise Refusal(403, f"You don't have the rights to create a {kind} under {owner!r}")
        repo_id = f"{owner}/{wish['name']}"
        if (kind, repo_id) in self.hub.repos:
            raise Refusal(409, f"You already created this {kind} repo")
        private = wish.get("visibility") == "private" and not self.hub.ignores_private
        self.hub.add_repo(kind, repo_id, private=private)
        prefix = "datasets/" if kind == "dataset" else ""
        return {"url": f"{self.hub.url}/{prefix}{repo_id}", "name": repo_id, "id": repo_id}

    @staticmethod
    def _validate(card: str) -> Any:
        parts = card.split("---", 2)
        try:
            front = yaml.safe_load(parts[1]) if card.startswith("---") and len(parts) == 3 else {}
        except yaml.YAMLError as error:
            raise Refusal(400, f"Invalid YAML: {error}") from None
        base = front.get("base_model") if isinstance(front, dict) else None
        if isinstance(base, str) and not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
            raise Refusal(400, '"base_model" must be a model id')
        return {"errors": [], "warnings": []}

    def _preupload(self, repo: Repo, wish: Any) -> Any:
        files = []
        for entry in wish["files"]:
            path, there = entry["path"], repo.files.get(entry["path"])
            lfs = path.endswith(LFS_SUFFIXES) or entry["size"] > LFS_SIZE
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
            oid = (there.sha256 if there.lfs else there.git) if there else None
            files.append(answer | {"shouldIgnore": path in self.hub.ignored, "oid": oid})
        return {"files": files}

    def _batch(self, wish: Any) -> Any:
        base = self.hub.upload_base or self.hub.url
        objects = []
        for entry in wish["objects"]:
            known = entry["oid"] in self.hub.objects
            upload = {"upload": {"href": f"{base}/lfs/{entry['oid']}"}}
            objects.append(entry if known else entry | {"actions": upload})
        return {"transfer": "basic", "objects": objects}

    def _take(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content does not have the hash it was announced with")
        self.hub.objects[oid] = self.body
        return {}

    def _commit(self, repo: Repo, kind: str, repo_id: str) -> Any:
        lines = [json.loads(line) for line in self.body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != repo.commits[-1]:
            raise Refusal(412, "A commit has happened since")
        files = dict(repo.files)
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile" and value["oid"] in self.hub.objects:
                files[value["path"]] = Blob(self.hub.objects[value["oid"]], lfs=True)
            elif key == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                raise Refusal(400, f"{key} {value.get('path')}: no such object or file")
        oid = repo.add_commit(files)
        prefix = "datasets/" if kind == "dataset" else ""
        return {"commitOid": oid, "commitUrl": f"{self.hub.url}/{prefix}{repo_id}/commit/{oid}"}

    def _info(self, repo: Repo, repo_id: str, commit: str) -> Any:
        siblings = [{"rfilename": path} for path in repo.trees[commit]]
        facts = {"id": repo_id, "author": repo_id.partition("/")[0], "sha": commit, "tags": []}
        return facts | {"private": repo.private, "siblings": siblings, "gated": False}

    def _tree(self, repo: Repo, commit: str, under: str, *, recursive: bool = False) -> Any:
        recursive = recursive or self.query.get("recursive", [""])[0].lower() in ("true", "1")
        start = f"{under.strip('/')}/" if under else ""
        entries: dict[str, Any] = {}
        for path, blob in repo.trees[commit].items():
            if not path.startswith(start):
                continue
            parts = path.removeprefix(start).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = start + "/".join(parts[:depth])
                oid = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()
                entries[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
            if recursive or len(parts) == 1:
                entries[path] = _listed(path, blob)
        if under and not entries:
            raise Refusal(404, f"{under} does not exist", "EntryNotFound")
        return list(entries.values())

    def _file(self, kind: str, repo_id: str, revision: str, path: str) -> Reply:
        repo = self._readable(kind, repo_id)
        commit = self._revision(repo, revision)
        blob = repo.trees[commit].get(path)
        if blob is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{blob.sha256 if blob.lfs else blob.git}"', "X-Repo-Commit": commit}
        if blob.lfs:
            headers |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-Etag": headers["ETag"]}
        return headers | {"Content-Type": "application/octet-stream"}, blob.content


def _listed(path: str, blob: Blob) -> dict[str, Any]:
    size = len(blob.content)
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob.git, "size": size}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": size, "pointerSize": 134}
    return entry
