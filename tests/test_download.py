"""Fetching a model by its URL: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.models import resolve

MODEL = b"GGUF" + bytes(range(256)) * 5000
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A file server, the paths it was asked for, and a cache of its own."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/moved.gguf":
                self.send_response(302)
                self.send_header("Location", "/model.gguf")
                self.end_headers()
            elif self.path == "/model.gguf":
                self.send_response(200)
                self.send_header("Content-Length", str(len(MODEL)))
                self.end_headers()
                self.wfile.write(MODEL)
            elif self.path == "/cut.gguf":
                self.send_response(200)
                self.send_header("Content-Length", str(len(MODEL)))
                self.end_headers()
                self.wfile.write(MODEL[:1000])
            else:
                self.send_error(404)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()
        thread.join()


def leftovers(tmp_path: Path) -> list[Path]:
    """Files in the cache."""
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_model_is_fetched_once(server: tuple[str, list[str]], tmp_path: Path) -> None:
    """The file is in the cache under its checksum and name, and is not asked for again."""
    url, asked = server
    path = resolve(f"{url}/moved.gguf", sha256=SHA256)
    assert path.read_bytes() == MODEL
    assert path.name == f"{SHA256[:12]}-moved.gguf"
    assert resolve(f"{url}/moved.gguf", sha256=SHA256.upper()) == path
    assert asked == ["/moved.gguf", "/model.gguf"]


@pytest.mark.parametrize(
    ("name", "sha256", "says"),
    [
        ("model.gguf", "0" * 64, "sha256 is"),
        ("cut.gguf", SHA256, "cannot be fetched"),
        ("none.gguf", SHA256, "HTTP 404"),
        ("model.gguf", None, "needs its sha256"),
    ],
)
def test_what_is_not_the_file_is_not_kept(
    server: tuple[str, list[str]], tmp_path: Path, name: str, sha256: str | None, says: str
) -> None:
    """Another checksum, a cut transfer and a missing file are one clear line each."""
    with pytest.raises(UserError, match=says):
        resolve(f"{server[0]}/{name}", sha256=sha256)
    assert leftovers(tmp_path) == []


def test_local_privacy_fetches_nothing(server: tuple[str, list[str]]) -> None:
    """Under `privacy: local` no other host is asked."""
    with pytest.raises(PrivacyError, match="models\\.example"):
        resolve("https://models.example/m.gguf", sha256=SHA256, policy=Policy(local=True))
