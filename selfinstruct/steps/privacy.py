"""`privacy: local`, enforced: which hosts may be reached, and a guard on this process's sockets.

`Policy.check_url` refuses an address before a client is built for it, so that the user reads which
recipe key to change. `enforce` is the net below it: an audit hook that sees every connection and
every name lookup of Python code in this process, the SDKs' and hub libraries' included, and refuses
it before a byte leaves. Two things it cannot see: what native code does (uvloop's name lookups, or
the hubs' transfer library, which is why hub libraries are told through their environment variables
to stay off line) and child processes.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from selfinstruct.core.errors import PrivacyError, UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Libraries that would otherwise ask a hub, or count users, on their own account.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",  # native code, which the guard cannot see
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Policy:
    """Where this run may connect to.

    `allow_hosts` are names, addresses or networks ("10.1.0.0/16"), without scheme or port. They
    matter only where `local` is set; loopback is always allowed. Raises `UserError` for an entry
    that is none of these.
    """

    local: bool = False
    allow_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in self.allow_hosts:
            if _network(entry) is None and not _is_name(entry):
                raise UserError(
                    f"allow_hosts: {entry!r} is no host name, address or network; "
                    "write it without scheme, port or path"
                )

    @classmethod
    def of(cls, privacy: str, allow_hosts: Sequence[str]) -> Policy:
        """The policy of a recipe's keys `privacy` ("local" or "open") and `allow_hosts`."""
        return cls(local=privacy == "local", allow_hosts=tuple(allow_hosts))

    def allows(self, host: str) -> bool:
        """Whether `host`, a name or an address as written, may be reached. Resolves nothing."""
        name = _plain(host)
        if not self.local or name == "localhost":
            return True
        address = _address(name)
        if address is None:
            return name in {_plain(entry) for entry in self.allow_hosts}
        networks = (network for entry in self.allow_hosts if (network := _network(entry)))
        return address.is_loopback or any(address in network for network in networks)

    def check_url(self, url: str, key: str = "base_url") -> None:
        """Raises `PrivacyError` where `url` leads to a host this policy refuses.

        `key` is the recipe key that holds the address. A URL without a host that can be told for
        sure is a `UserError` whatever the policy.
        """
        host = host_of(url, key)
        if not self.allows(host):
            raise PrivacyError(
                f"privacy: local refuses the host {host!r} ({key}): "
                "add it to allow_hosts in the recipe, or set privacy: open"
            )


def host_of(url: str, key: str = "base_url") -> str:
    """The host of an http(s) `url`. Raises `UserError`, naming the recipe key `key`."""
    # Clients disagree on what a backslash or a blank means: none may decide where data goes.
    odd = any(c in url for c in "\\ \t\r\n") or not url.isprintable()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if odd or parts is None or not host or parts.scheme not in ("http", "https"):
        raise UserError(f"{key}: {url!r} is no address such as http://localhost:8000/v1")
    return host


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address as written, is this machine. Resolves nothing."""
    return Policy(local=True).allows(host)


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _is_name(text: str) -> bool:
    letters = text.replace("-", "").replace(".", "").replace("_", "")
    return bool(letters) and letters.isalnum()


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


@dataclass
class _Guard:
    """The policy in force, and the addresses that its allowed names were found to have."""

    policy: Policy = field(default_factory=Policy)
    known: set[str] = field(default_factory=set)
    installed: bool = False


_guard = _Guard()
# Set while the hook itself looks a name up, so that the hook lets that pass.
_inside = threading.local()


@contextlib.contextmanager
def enforce(policy: Policy, *, hub_offline: bool = True) -> Iterator[None]:
    """Hold this process to `policy` until the block is left, whatever library connects.

    A refused connection raises `PrivacyError` where it is made. Where `policy.local` is set, hub
    libraries are switched off line; `hub_offline=False` leaves that out, for publishing to a hub
    that the policy allows. Blocks nest: the inner one counts.
    """
    if not _guard.installed:
        sys.addaudithook(_hook)  # cannot be removed, so it is installed once and looks at _guard
        _guard.installed = True
    before_policy, before_known = _guard.policy, _guard.known
    wanted = (QUIET | OFFLINE if hub_offline else QUIET) if policy.local else {}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    follow_environment()
    _guard.policy, _guard.known = policy, set()
    try:
        yield
    finally:
        _guard.policy, _guard.known = before_policy, before_known
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        follow_environment()


def hub_is_off() -> bool:
    """Whether the environment, as it is now, keeps Hub libraries off line."""
    return any(_is_set(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def follow_environment() -> None:
    """Make Hub libraries that are imported already follow the environment as it is now.

    They read it once, when they are imported: a process that imported one in the middle of a local
    run could never publish afterwards, and one that imported it before would not be off line.
    """
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        silent = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
        values = {
            "HF_HUB_OFFLINE": hub_is_off(),
            "HF_HUB_DISABLE_XET": _is_set("HF_HUB_DISABLE_XET"),
            "HF_HUB_DISABLE_TELEMETRY": any(map(_is_set, silent)),
        }
        vars(hub).update(values)
    datasets = sys.modules.get("datasets.config")
    if datasets is not None:
        off = hub_is_off() or _is_set("HF_DATASETS_OFFLINE")
        vars(datasets).update(HF_HUB_OFFLINE=off, HF_DATASETS_OFFLINE=off)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


def _hook(event: str, args: tuple[Any, ...]) -> None:
    """Called by the interpreter for everything it audits; must be quick for what is not ours."""
    if not event.startswith("socket.") or not _guard.policy.local:
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _check_connection(args[0], args[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        _check_lookup(args[0])


def _check_lookup(host: str | bytes | None) -> None:
    """A lookup asks a name server: a refused name must not even be asked for."""
    if host is None or getattr(_inside, "looking_up", False):
        return
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not name:
        return
    if not _guard.policy.allows(name):
        _refuse(name)
    if _address(_plain(name)) is None and _plain(name) != "localhost":
        _remember(name)


def _check_connection(sock: Any, address: Any) -> None:
    family = getattr(sock, "family", None)
    if address is None or family not in (socket.AF_INET, socket.AF_INET6):
        return  # AF_UNIX and the like stay on this machine
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if _guard.policy.allows(host) or host in _guard.known:
        return
    if _address(host) is not None:
        # A resolver outside Python's socket module (uvloop's, say) goes unseen: look up again.
        for name in _guard.policy.allow_hosts:
            if _network(name) is None:
                _remember(name)
        if host in _guard.known:
            return
    _refuse(host)


def _remember(name: str) -> None:
    """Add the addresses of an allowed `name` to those that may be connected to."""
    _inside.looking_up = True
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:  # no such name: the caller's own lookup reports it
        return
    finally:
        _inside.looking_up = False
    _guard.known.update(str(entry[4][0]) for entry in found)


def _refuse(host: str) -> None:
    raise PrivacyError(
        f"privacy: local refused a connection to {host!r}: "
        "add it to allow_hosts in the recipe, or set privacy: open"
    )
