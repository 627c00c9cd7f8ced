"""Fetching a model file by its URL: streamed, checked, and there only when it is whole."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from selfinstruct.core.errors import UserError

_CONNECT_S, _READ_S = 20.0, 60.0


def file_name(url: str, sha256: str) -> str:
    """The name a fetched file has in the cache: part of its checksum, and the URL's last part."""
    last = Path(urlsplit(url).path).name or "model.gguf"
    return f"{sha256.lower()[:12]}-{last}"


def fetch_url(url: str, sha256: str, path: Path) -> None:
    """Fetch `url` to `path`, with a progress bar on a terminal.

    Redirects to https are followed. Raises `UserError` where the server does not give the file, or
    gives one with another checksum; nothing is left behind then.
    """
    import httpx

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".fetching-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            found = _stream(url, target.write)
            target.flush()
            os.fsync(target.fileno())
        if found != sha256.lower():
            raise UserError(
                f"{url}: sha256 is {found}, expected {sha256.lower()}; nothing was kept"
            )
        temporary.replace(path)
    except httpx.HTTPStatusError as error:
        raise UserError(f"{url}: the server answers HTTP {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise UserError(f"{url}: cannot be fetched ({error or type(error).__name__})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _stream(url: str, write: Callable[[bytes], object]) -> str:
    """Pass the body of `url` to `write` piece by piece and return its SHA-256."""
    import httpx
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    digest = hashlib.sha256()
    timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty()
    with (
        httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as reply,
        Progress(*columns, console=Console(stderr=True), disable=not shown) as bar,
    ):
        reply.raise_for_status()
        size = reply.headers.get("content-length")
        task = bar.add_task("Fetching", total=int(size) if size else None)
        for piece in reply.iter_raw():
            digest.update(piece)
            write(piece)
            bar.advance(task, len(piece))
    return digest.hexdigest()
