"""What `privacy: local` lets through, by address and at the socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import PrivacyError, UserError
from selfinstruct.steps.privacy import Policy, enforce, host_of, is_loopback
from selfinstruct.testing.fake_server import Running

LOCAL = Policy(local=True)
REMOTE = "192.0.2.1"  # TEST-NET-1: leads nowhere


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://LOCALHOST./v1",
        "http://127.0.0.1:8000",
        "http://127.8.9.10/v1",
        "http://[::1]:8000/v1",
        "http://[::ffff:127.0.0.1]/v1",
    ],
)
def test_loopback_is_always_allowed(url: str) -> None:
    """Every spelling of this machine passes, without a lookup."""
    LOCAL.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://localhost.example.com/v1",
        "http://localhost@example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://128.0.0.1/v1",
        "http://0.0.0.0:8000/v1",
        "http://10.0.0.1/v1",
        "http://2130706433/v1",
        "http://[::2]/v1",
        "http://[::ffff:192.0.2.1]/v1",
    ],
)
def test_other_hosts_are_refused_by_name(url: str) -> None:
    """The message names the host and what to change."""
    with pytest.raises(PrivacyError, match=r"refuses the host .*allow_hosts"):
        LOCAL.check_url(url)
    Policy(local=False).check_url(url)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://localhost", "http://", "http://a b/", "http://x\\@y/", "http://x:y/"]
)  # fmt: skip
def test_an_unclear_address_is_refused_whatever_the_policy(url: str) -> None:
    """Where clients might disagree on the host, nothing is sent."""
    with pytest.raises(UserError, match="is no address"):
        Policy().check_url(url, "teacher.base_url")


def test_listed_names_addresses_and_networks_are_allowed() -> None:
    """An entry allows itself and no more."""
    policy = Policy(local=True, allow_hosts=("GPU-1.example", "192.0.2.7", "10.1.0.0/16", "[::5]"))
    for host in ("gpu-1.example", "GPU-1.EXAMPLE.", "192.0.2.7", "10.1.200.3", "::5"):
        assert policy.allows(host)
    for host in ("gpu-11.example", "a.gpu-1.example", "192.0.2.8", "10.2.0.1", "::6"):
        assert not policy.allows(host)


@pytest.mark.parametrize("entry", ["http://x", "x:80", "x/y", "", "a b"])
def test_entries_are_hosts_and_nothing_else(entry: str) -> None:
    """An entry that could never match is an error, not a rule without effect."""
    with pytest.raises(UserError, match="allow_hosts"):
        Policy(local=True, allow_hosts=(entry,))


@given(st.ip_addresses())
def test_only_loopback_addresses_are_loopback(address: object) -> None:
    """For every address: allowed exactly if the standard library calls it loopback."""
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert is_loopback(str(address)) == mapped.is_loopback


@given(st.text(max_size=30))
def test_any_text_has_a_host_or_is_refused(text: str) -> None:
    """No text gets past without a host that was looked at."""
    with contextlib.suppress(UserError):
        assert host_of(f"http://{text}")


def test_the_guard_refuses_connections_and_lookups() -> None:
    """Whoever connects in this process is stopped before a byte leaves."""
    with enforce(LOCAL):
        with pytest.raises(PrivacyError, match=REMOTE):
            socket.create_connection((REMOTE, 80), timeout=1)
        with pytest.raises(PrivacyError, match=r"hub\.example"):
            socket.getaddrinfo("hub.example", 443)
        with pytest.raises(PrivacyError, match=r"hub\.example"):
            socket.gethostbyname("hub.example")
        with pytest.raises(PrivacyError, match=r"hub\.example"):
            urllib.request.urlopen("https://hub.example/x")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(PrivacyError):
            sock.sendto(b"x", (REMOTE, 53))


def test_the_guard_lets_loopback_through(fake_server: Running) -> None:
    """This machine's own servers are reached, by address and by name."""
    with enforce(LOCAL):
        for url in (fake_server.url, fake_server.url.replace("127.0.0.1", "localhost")):
            with urllib.request.urlopen(f"{url}/health") as reply:
                assert reply.status == 200


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_the_guard_leaves_unix_sockets_alone() -> None:
    """They cannot leave the machine."""
    with enforce(LOCAL):
        left, right = socket.socketpair()
        with left, right:
            left.sendall(b"x")
            assert right.recv(1) == b"x"
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(FileNotFoundError):
            sock.connect("/nonexistent/socket")


def test_the_guard_holds_in_event_loops() -> None:
    """asyncio's own ways to connect and to look up are seen as well."""

    async def connect(host: str) -> None:
        await asyncio.open_connection(host, 9)

    with enforce(LOCAL):
        for host in (REMOTE, "hub.example"):
            with pytest.raises(PrivacyError):
                asyncio.run(connect(host))
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(connect("127.0.0.1"))


def connect_to(address: str) -> None:
    """What the interpreter announces before it connects; no packet leaves."""
    with socket.socket() as sock:
        sys.audit("socket.connect", sock, (address, 9))


def test_the_guard_ends_with_its_block_and_nests() -> None:
    """Outside the block everything is as before; an inner policy counts for its block."""
    with enforce(LOCAL):
        with enforce(Policy()):
            connect_to(REMOTE)
        with pytest.raises(PrivacyError):
            connect_to(REMOTE)
    connect_to(REMOTE)


def test_a_listed_name_works_after_its_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an allowed name resolves to may be connected to, and what another does not."""

    def resolver(host: str, *rest: object, **options: object) -> object:
        sys.audit("socket.getaddrinfo", host, 0, 0, 0, 0)  # as the real one does
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], 9))]

    addresses = {"fleet.example": "192.0.2.50"}
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with enforce(Policy(local=True, allow_hosts=("fleet.example",))):
        connect_to("192.0.2.50")  # looked up by something that the guard did not see
        socket.getaddrinfo("fleet.example", 9)
        addresses["fleet.example"] = "192.0.2.60"  # the name moves; open addresses stay good
        connect_to("192.0.2.50")
        connect_to("192.0.2.60")
        with pytest.raises(PrivacyError, match=r"192\.0\.2\.51"):
            connect_to("192.0.2.51")


def test_hub_libraries_are_told_to_stay_off_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local run sets their switches and puts the environment back afterwards."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    with enforce(LOCAL):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        assert os.environ["DO_NOT_TRACK"] == "1"
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["DO_NOT_TRACK"] == "0"
    with enforce(LOCAL, hub_offline=False):
        assert "HF_HUB_OFFLINE" not in os.environ
    with enforce(Policy()):
        assert "HF_HUB_OFFLINE" not in os.environ


def test_hub_library_imported_in_a_local_run_works_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reads the switches once, at import: they are carried over on entering and on leaving."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    from huggingface_hub import constants

    with enforce(LOCAL):
        assert constants.HF_HUB_OFFLINE
        assert constants.HF_HUB_DISABLE_XET
    assert not constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_DISABLE_XET
    assert constants.HF_HUB_DISABLE_TELEMETRY


OFFLINE_CHILD = """
import asyncio, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Sampling
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.testing.fake_server import running

async def main(url):
    policy = Policy(local=True)
    teacher = CompatibleTeacher(id="t", model="m", base_url=url + "/v1", policy=policy)
    with enforce(policy):
        await teacher.start()
        request = make_request(teacher="t", model="m", sampling=Sampling(max_tokens=50),
                               messages=(Message("user", "Hello?"),), sample=0)
        print(len((await teacher(request)).text) > 0)
        await teacher.close()

with running() as server:
    asyncio.run(main(server.url))
"""


def _can_unshare() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="no user namespaces here")
def test_a_local_call_needs_nothing_but_loopback() -> None:
    """In a child that has no network but loopback, a call under privacy: local succeeds."""
    child = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", OFFLINE_CHILD], capture_output=True, text=True
    )
    assert (child.stdout.strip(), child.returncode) == ("True", 0), child.stderr
