"""A Hub on loopback, for tests and for trying out `publish` without an account.

As a process, which prints its address and a token on the first lines of its output::

    python -m selfinstruct.testing.fake_hub --port 8765

or beside a test, in threads of its own::

    with running(HubState(tokens={"hf_owner": "owner"})) as hub:
        os.environ["HF_ENDPOINT"] = hub.url

It is enough of a Hub for `datasets.load_dataset` and `from_pretrained`. Repositories live in
memory and are gone when it stops.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from selfinstruct.testing.hub_replies import Call, Exchange, HubState, Refusal

__all__ = ["HubState", "running"]


@contextlib.contextmanager
def running(hub: HubState | None = None, port: int = 0) -> Iterator[HubState]:
    """Serve `hub` on a loopback port (a free one for 0) until the block is left."""
    hub = hub or HubState()
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: HubState) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait for each other's ACK

        def _serve(self) -> None:
            body = self._body()
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            user = hub.tokens.get(token, "")
            with lock:
                hub.calls.append(Call(self.command, unquote(urlsplit(self.path).path), user))
                try:
                    headers, content = Exchange(hub, self.command, self.path, body, user).answer()
                    status = 200
                except Refusal as refusal:
                    status, headers, content = refusal.status, _error(refusal), b"{}"
                    content = json.dumps({"error": refusal.message}).encode()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and status == 200:
                first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                status, content = 206, content[first : last + 1]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            """Nothing: `FakeHub.calls` is the log."""

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 (http.server's names)

    return Handler


def _error(refusal: Refusal) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "X-Error-Message": refusal.message}
    return headers | ({"X-Error-Code": refusal.code} if refusal.code else {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description="A Hub on loopback, in memory.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--owner", default="owner", help="the namespace that the token writes to")
    parser.add_argument("--token", default="hf_test")
    options = parser.parse_args(arguments)
    with running(HubState(tokens={options.token: options.owner}), options.port) as hub:
        sys.stdout.write(f"{hub.url}\ntoken {options.token} writes to {options.owner}/\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
