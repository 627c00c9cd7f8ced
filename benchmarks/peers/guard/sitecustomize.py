"""Refuses every address but loopback in any Python process that finds this file on its path.

A peer that still wants to reach somebody, whatever its settings say, is written down in the file
that BENCH_GUARD_LOG names, and does not reach it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_LOG = os.environ.get("BENCH_GUARD_LOG", "")
_LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def _guard(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = args[1]
        host = str(address[0]) if isinstance(address, tuple) else "localhost"
    elif event == "socket.getaddrinfo":
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0] or "localhost")
    else:
        return
    if not host.startswith(_LOCAL):
        descriptor = os.open(_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{host}\n".encode())
        os.close(descriptor)
        raise ConnectionRefusedError(f"{host}: only loopback is allowed here")


if _LOG:
    sys.addaudithook(_guard)
