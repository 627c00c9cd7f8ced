"""Finding the student's base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.steps.privacy import Policy, hub_is_off
from selfinstruct.steps.training.base import check_base, find_base, same_model
from selfinstruct.testing.fake_hub import HubState, running
from selfinstruct.testing.hub_replies import Blob, Repo

HEADER = b'{"tensor": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"ab"
OPEN, LOCAL = Policy(), Policy(local=True)


def model_folder(path: Path, card: str = "") -> Path:
    """A folder that looks like a model's from outside."""
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "model.safetensors").write_bytes(WEIGHTS)
    (path / "tokenizer.json").write_text("{}")
    if card:
        (path / "README.md").write_text(card)
    return path


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A model folder is its own base, with the licence of its card."""
    folder = model_folder(tmp_path / "m", "---\nlicense: apache-2.0\n---\n# M\n")
    base = find_base(str(folder), LOCAL)
    assert (base.folder, base.license, base.hub_id) == (folder, "apache-2.0", "")


@pytest.mark.parametrize("card", ["no front matter", "---\n: [\n---\n", "---\n- a\n---\n"])
def test_a_card_without_a_licence(tmp_path: Path, card: str) -> None:
    """A card that says nothing, or is broken, leaves the licence unknown."""
    assert find_base(str(model_folder(tmp_path / "m", card)), LOCAL).license == ""


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder copied out of the Hub's cache may hold links that lead nowhere."""
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0a1b")
    for look in (find_base, check_base):
        with pytest.raises(
            UserError, match=r"m: model\.safetensors: cannot be read \(No such file"
        ):
            look(str(folder), LOCAL)


def test_the_identity_follows_the_files(tmp_path: Path) -> None:
    """A copy is the same base; other weights or another config are another."""
    one, other = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    first = find_base(str(one), LOCAL).identity
    assert find_base(str(other), LOCAL).identity == first
    (other / "config.json").write_text('{"model_type": "mistral"}')
    assert find_base(str(other), LOCAL).identity != first
    (one / "model.safetensors").write_bytes(WEIGHTS.replace(b"tensor", b"others"))
    assert find_base(str(one), LOCAL).identity != first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.gguf", "no such GGUF file"),
        ("nowhere", "neither a model folder"),
        ("a/b/c", "neither a model folder"),
        ("a/b@v1", r"neither a model folder.*student\.revision says which commit"),
        ("empty", "no config.json"),
        ("adapter", "is an adapter"),
        ("weightless", "no weights"),
    ],
)
def test_what_is_no_base_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    """Each way to name no base has its own line."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    model_folder(tmp_path / "weightless")
    (tmp_path / "weightless/model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        find_base(name, OPEN)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_local_run_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Privacy local, and the Hub's own switch, use the cache alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert not hub_is_off()
    with pytest.raises(UserError, match=r"acme/none: .*may not be asked"):
        find_base("acme/none", LOCAL)
    with pytest.raises(PrivacyError, match="fetches nothing"):
        find_base("smollm2-135m-instruct", LOCAL)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_is_off()
    with pytest.raises(UserError, match=r"acme/none: .*may not be asked"):
        find_base("acme/none", OPEN)


def test_a_model_in_the_hubs_cache_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the Hub's cache holds is found without asking, and keeps its name on the Hub."""
    repo = tmp_path / "models--acme--tiny"
    model_folder(repo / "snapshots" / "c0ffee", "---\nlicense: mit\n---\n")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("c0ffee")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    base = find_base("acme/tiny", LOCAL)
    assert (base.hub_id, base.license) == ("acme/tiny", "mit")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubState]:
    """A Hub that this process asks, and an empty cache."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with running() as hub:
        files = "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + files,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield hub


def add_commit(repo: Repo, folder: Path) -> str:
    """Commit the files of a model's `folder`; the commit's hash."""
    files = {path.name: Blob(path.read_bytes(), lfs=False) for path in folder.iterdir()}
    return repo.add_commit(files)


def test_a_revision_of_the_hub_is_fetched_and_kept(hub: HubState, tmp_path: Path) -> None:
    """A tag and a commit are one base, which stays when the branch moves, and offline too."""
    repo = hub.add_repo("model", "acme/tiny", private=False)
    old = add_commit(repo, model_folder(tmp_path / "old"))
    repo.tags["v1"] = old
    (tmp_path / "old/config.json").write_text('{"model_type": "mistral"}')
    new = add_commit(repo, tmp_path / "old")
    tagged, newest = find_base("acme/tiny", OPEN, "v1"), find_base("acme/tiny", OPEN)
    assert (tagged.commit, newest.commit, tagged.name) == (old, new, "acme/tiny")
    assert tagged.identity != newest.identity
    assert find_base("acme/tiny", OPEN, old) == tagged
    assert (tagged.folder / "config.json").read_text() == '{"model_type": "llama"}'
    for revision in ("v1", old):
        assert find_base("acme/tiny", LOCAL, revision) == tagged
        check_base("acme/tiny", LOCAL, revision)


def test_a_revision_that_is_not_there_is_named(hub: HubState, tmp_path: Path) -> None:
    """The Hub has no such tag; a cache that has another commit does not stand in for it."""
    repo = hub.add_repo("model", "acme/tiny", private=False)
    add_commit(repo, model_folder(tmp_path / "old"))
    with pytest.raises(UserError, match=r"student\.revision: the Hub has no .*v2 of acme/tiny"):
        find_base("acme/tiny", OPEN, "v2")
    find_base("acme/tiny", OPEN)
    for look in (find_base, check_base):
        with pytest.raises(UserError, match=r"student\.base: acme/tiny@v2: .*may not be asked"):
            look("acme/tiny", LOCAL, "v2")


def test_a_base_of_this_machine_has_no_revision(tmp_path: Path) -> None:
    """It would be left out in silence, so it is refused."""
    folder = model_folder(tmp_path / "m")
    for name, what in (
        (str(folder), "folder"), ("a.gguf", "GGUF file"), ("smollm2-135m-instruct", "GGUF file"),
    ):  # fmt: skip
        for look in (find_base, check_base):
            with pytest.raises(UserError, match=rf"student\.revision: .* is a {what}"):
                look(name, OPEN, "v1")


def test_names_of_one_model(tmp_path: Path) -> None:
    """The same name or the same file is the same model; a name and a path are not compared."""
    file, other = tmp_path / "a.gguf", tmp_path / "b.gguf"
    file.write_bytes(b"GGUF")
    other.write_bytes(b"GGUF")
    assert same_model("smollm2-135m-instruct", "smollm2-135m-instruct")
    assert same_model(str(file), str(tmp_path / "." / "a.gguf"))
    assert not same_model(str(file), str(other))
    assert not same_model("smollm2-135m-instruct", str(file))
