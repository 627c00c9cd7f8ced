"""Our own HTTP client against servers that say every byte themselves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import PrivacyError, TeacherFault
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.teachers import wire as wire_module
from selfinstruct.steps.teachers.connection import LARGEST_REPLY, Connection, Reply
from selfinstruct.steps.teachers.proxied import Proxied, proxy_for
from selfinstruct.steps.teachers.wire import Wire
from tests.raw_http import Caller, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@contextlib.asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Wire]:
    made = Wire({"X-Mine": "yes"}, **{"connections": 4, "timeout_s": 5, "stall_s": 5} | options)
    try:
        yield made
    finally:
        await made.close()
        assert not made.open


async def fault_of(url: str, **options: Any) -> TeacherFault:
    async with client(**options) as wire:
        with pytest.raises(TeacherFault) as caught:
            await wire.post(url, b"{}")
    return caught.value


class Ears(asyncio.Transport):
    """A transport that swallows what is said."""

    def write(self, data: object) -> None:
        """Nobody listens."""

    def abort(self) -> None:
        """Nothing to end."""

    def is_closing(self) -> bool:
        """Never."""
        return False


async def heard(parts: list[bytes], *, hang_up: bool) -> Reply:
    """The reply that comes in so many parts."""
    connection = Connection(set(), 5.0, 5.0)
    connection.connection_made(Ears())
    reply = asyncio.create_task(connection.exchange(b"POST"))
    await asyncio.sleep(0)
    for part in parts:
        connection.data_received(part)
    if hang_up:
        connection.connection_lost(None)
    return await reply


def framed(body: bytes, framing: str, cut: int) -> bytes:
    """The end of a head, and the body as `framing` has it."""
    if framing == "length":
        return b"content-length: %d\r\n\r\n%b" % (len(body), body)
    if framing == "close":
        return b"Connection: close\r\n\r\n" + body
    pieces = [body[n : n + cut] for n in range(0, len(body), cut)]
    chunks = b"".join(b"%x;name=value\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: 1\r\n\r\n"


@settings(max_examples=150, deadline=None)
@given(
    body=st.binary(max_size=300),
    framing=st.sampled_from(["length", "chunked", "close"]),
    encoding=st.sampled_from(["", "gzip", "deflate"]),
    status=st.sampled_from([200, 429, 500]),
    before=st.sampled_from(
        [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n"]
    ),
    cut=st.integers(1, 50),
    sizes=st.lists(st.integers(1, 60), max_size=40),
)
def test_a_reply_is_the_same_however_it_is_framed_and_cut(
    body: bytes, framing: str, encoding: str, status: int, before: bytes, cut: int, sizes: list[int]
) -> None:
    """Length, chunks or the end of the connection; compressed or not; in any pieces."""
    coded = {"": body, "gzip": gzip.compress(body), "deflate": zlib.compress(body)}[encoding]
    said = f"Content-Encoding: {encoding}\r\n".encode() if encoding else b""
    head = b"HTTP/1.1 %d Word\r\nX-Two: a\r\nx-two: b\r\n" % status
    whole = before + head + said + framed(coded, framing, cut)
    parts, at = [], 0
    for size in sizes:
        parts.append(whole[at : at + size])
        at += size
    parts = [part for part in [*parts, whole[at:]] if part]
    reply = asyncio.run(heard(parts, hang_up=framing == "close"))
    assert (reply.status, reply.body, reply.headers["x-two"]) == (status, body, "a, b")


async def test_what_is_sent_is_one_post_with_its_headers() -> None:
    """The request names its host and length and brings the client's headers and the body."""
    async with serving(OK) as server, client() as wire:
        await wire.post(server.url(), b'{"a": 1}')
        wire.set_header("X-Mine", "changed")
        await wire.post(server.url(), b"")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    assert {f"Host: 127.0.0.1:{server.port}", "X-Mine: yes", "Content-Length: 8"} <= set(lines)
    assert body == b'{"a": 1}'
    assert b"X-Mine: changed" in server.requests[1]


async def test_a_user_in_the_address_becomes_basic_authorization() -> None:
    """As with other clients; the user is not part of the host's name."""
    async with serving(OK) as server, client() as wire:
        await wire.post(server.url(host="me:p%40ss@127.0.0.1"), b"{}")
    assert b"Authorization: Basic bWU6cEBzcw==" in server.requests[0]
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in server.requests[0]


async def test_a_connection_is_used_again() -> None:
    """Call after call on one connection, as long as the server says nothing else."""
    async with serving(OK) as server, client() as wire:
        for _ in range(5):
            assert (await wire.post(server.url(), b"{}")).body == b"hi"
    assert server.connections == 1


@pytest.mark.parametrize(
    "last",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + b"and more than was asked for",
    ],
    ids=["close", "old", "more"],
)
async def test_a_connection_is_not_used_again_where_it_should_not(last: bytes) -> None:
    """After "Connection: close", HTTP/1.0, or bytes that belong to no reply."""
    async with serving(last) as server, client() as wire:
        for _ in range(3):
            assert (await wire.post(server.url(), b"{}")).body == b"hi"
            await asyncio.sleep(0.01)
    assert server.connections == 3


async def test_a_server_that_hangs_up_between_calls_costs_no_call() -> None:
    """An idle connection that was closed at the other end is not used for the next call."""

    async def answer_and_leave(caller: Caller) -> None:
        await caller.say(OK)
        caller.writer.close()

    async with serving(answer_and_leave) as server, client() as wire:
        for _ in range(3):
            assert (await wire.post(server.url(), b"{}")).status == 200
            await asyncio.sleep(0.02)
    assert server.connections == 3


async def test_an_idle_connection_is_left_before_the_server_hangs_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was idle for longer than servers wait is closed and not used again."""
    monkeypatch.setattr(wire_module, "KEEP_ALIVE_S", 0.05)
    async with serving(OK) as server, client() as wire:
        await wire.post(server.url(), b"{}")
        await asyncio.sleep(0.1)
        await wire.post(server.url(), b"{}")
        assert len(wire.open) == 1
    assert server.connections == 2


def reply(headers: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n\r\n%b" % (len(body), headers, body)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", "connection"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "connection"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "connection"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bad_reply"),
        (reply(b"Content-Encoding: br", b"x"), "bad_reply"),
        (reply(b"Content-Encoding: gzip", b"x"), "bad_reply"),
        (reply(b"Content-Encoding: gzip", gzip.compress(b"x" * 9999)[:30]), "bad_reply"),
    ],
    ids=["nothing", "ssh", "upgrade", "head", "chunks", "brotli", "no gzip", "half gzip"],
)
async def test_what_is_no_reply_is_a_fault(said: bytes, kind: str) -> None:
    """Each has its kind, and may have been billed once a request was out."""
    async with serving(said) as server:
        fault = await fault_of(server.url())
    assert (fault.kind, fault.billed) == (kind, "maybe")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_reply_that_ends_early_is_no_reply(framing: str) -> None:
    """A body shorter than was promised is not taken for a whole one."""
    whole = b"HTTP/1.1 200 OK\r\n" + framed(b"x" * 100, framing, 10)

    async def half(caller: Caller) -> None:
        await caller.say(whole[:-60])
        caller.writer.close()

    async with serving(half) as server:
        fault = await fault_of(server.url())
    assert (fault.kind, fault.billed) == ("bad_reply", "maybe")
    assert "hung up" in fault.message


async def test_a_compressed_reply_is_capped_as_it_unfolds() -> None:
    """A few kilobytes that stand for more than the cap are a fault, and never in memory."""
    bomb = gzip.compress(bytes(LARGEST_REPLY + 1))
    async with serving(reply(b"Content-Encoding: gzip", bomb)) as server:
        fault = await fault_of(server.url())
    assert (fault.kind, fault.billed) == ("bad_reply", "yes")
    assert "32 MB" in fault.message


async def test_what_follows_a_reply_is_capped_too() -> None:
    """A body within the cap and a trailer without end are a fault, not a full memory."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: "

    async def endless(caller: Caller) -> None:
        await caller.say(head)
        for _ in range(100):
            await caller.say(b"x" * 2**20)

    async with serving(endless) as server:
        fault = await fault_of(server.url())
    assert (fault.kind, fault.billed) == ("bad_reply", "maybe")
    assert "trailers" in fault.message


async def test_the_deadline_ends_a_call_that_hears_nothing() -> None:
    """The call fails as possibly billed, its connection ends, and its place is free again."""
    ended = asyncio.Event()

    async def silence(caller: Caller) -> None:
        await caller.reader.read()
        ended.set()

    async with serving(silence, OK) as server, client(timeout_s=0.1, connections=1) as wire:
        with pytest.raises(TeacherFault, match=r"within 0\.1 s") as caught:
            await wire.post(server.url(), b"{}")
        await asyncio.wait_for(ended.wait(), 5)
        assert (await wire.post(server.url(), b"{}")).body == b"hi"
    assert (caught.value.kind, caught.value.billed) == ("timeout", "maybe")


async def test_a_reply_that_keeps_coming_is_no_stall() -> None:
    """Patience counts from the last byte, not from the first."""

    async def slow(caller: Caller) -> None:
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.05)
            await caller.say(b"x")

    async def stop(caller: Caller) -> None:
        await caller.say(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nx")

    async with serving(slow, stop) as server, client(stall_s=0.2) as wire:
        assert (await wire.post(server.url(), b"{}")).body == b"x" * 8
        with pytest.raises(TeacherFault, match=r"stood still for 0\.2 s"):
            await wire.post(server.url(), b"{}")


async def test_a_cancelled_call_gives_its_place_back() -> None:
    """Its connection is not used again: the reply to it may still come."""

    async def late(caller: Caller) -> None:
        await asyncio.sleep(0.1)
        await caller.say(OK)

    async with serving(late, OK) as server, client(connections=1) as wire:
        call = asyncio.create_task(wire.post(server.url(), b"{}"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await wire.post(server.url(), b"{}")).body == b"hi"
    assert server.connections == 2


async def test_a_server_that_is_not_there_costs_nothing(unused_port: int) -> None:
    """No connection, no request, no bill; also where the name means nothing."""
    fault = await fault_of(f"http://127.0.0.1:{unused_port}/v1")
    assert (fault.kind, fault.billed) == ("connection", "no")
    fault = await fault_of("http://nobody.invalid/v1")
    assert (fault.kind, fault.billed) == ("connection", "no")
    assert "nobody.invalid" in fault.message


async def test_the_next_address_of_a_name_is_tried() -> None:
    """A name whose first address has no server is reached at its second."""
    async with serving(OK) as server, client() as wire:
        assert (await wire.post(server.url(host="localhost"), b"{}")).body == b"hi"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_the_guard_sees_every_connection(kind: str) -> None:
    """privacy: local holds on any event loop, also for names."""
    factory = asyncio.new_event_loop
    if kind == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    async def call(url: str) -> None:
        async with client() as wire:
            await wire.post(url, b"{}")

    with enforce(Policy(local=True)), asyncio.Runner(loop_factory=factory) as runner:
        for host in ("192.0.2.1", "models.example"):
            with pytest.raises(PrivacyError, match=host):
                runner.run(call(f"http://{host}/v1"))


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens at."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its own certificate for 127.0.0.1 and localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_https_works_where_the_certificate_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Calls over TLS, on one connection; trust comes from where OpenSSL looks for it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(OK, tls=server_side(certificate)) as server, client() as wire:
        for _ in range(3):
            assert (await wire.post(server.url(host, "https"), b"{}")).body == b"hi"
    assert server.connections == 1


async def test_a_certificate_that_is_not_trusted_is_refused(certificate: Path) -> None:
    """Nothing is sent, and the fault names the certificate."""
    async with serving(OK, tls=server_side(certificate)) as server:
        fault = await fault_of(server.url("localhost", "https"))
    assert (fault.kind, fault.billed) == ("connection", "no")
    assert "certificate verify failed" in fault.message.lower()
    assert server.requests == []


@pytest.mark.parametrize(
    ("base", "policy", "wanted"),
    [
        ("http://models.example/v1", Policy(), "http://proxy.example:3128"),
        ("http://10.1.2.3/v1", Policy(), None),
        ("https://models.example/v1", Policy(), None),
        ("http://127.0.0.1:8000/v1", Policy(), None),
        ("http://models.example/v1", Policy(local=True, allow_hosts=("models.example",)), None),
    ],
    ids=["remote", "excepted", "another scheme", "this machine", "local run"],
)
def test_which_servers_are_reached_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, base: str, policy: Policy, wanted: str | None
) -> None:
    """The environment's proxy is for remote servers of runs that may use it."""
    _proxies(monkeypatch, "http://proxy.example:3128", no_proxy="10.1.2.3")
    assert proxy_for(base, policy) == wanted


def _proxies(monkeypatch: pytest.MonkeyPatch, proxy: str, no_proxy: str = "") -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", no_proxy)


@contextlib.asynccontextmanager
async def proxied(proxy: str, **options: Any) -> AsyncIterator[Proxied]:
    given = {"connections": 4, "timeout_s": 5, "stall_s": 5} | options
    made = Proxied({"X-Mine": "yes"}, proxy, **given)
    try:
        yield made
    finally:
        await made.close()


async def test_a_call_goes_through_the_proxy() -> None:
    """The proxy gets the whole address and its own authorization; the reply comes back."""
    async with (
        serving(OK) as server,
        proxied(f"http://me:secret@127.0.0.1:{server.port}") as made,
    ):
        made.set_header("X-Mine", "changed")
        reply = await made.post("http://models.example/v1/chat/completions", b"{}")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"hi", "2")
    asked = server.requests[0]
    assert asked.startswith(b"POST http://models.example/v1/chat/completions HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in asked
    assert b"X-Mine: changed" in asked


@pytest.mark.parametrize(
    ("said", "kind", "billed"),
    [
        (b"", "connection", "maybe"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "timeout", "maybe"),
    ],
    ids=["nothing", "stall"],
)
async def test_faults_behind_a_proxy_have_the_same_kinds(
    said: bytes, kind: str, billed: str
) -> None:
    """A hang-up and a reply that stands still are told apart as without a proxy."""
    async with (
        serving(said) as server,
        proxied(f"http://127.0.0.1:{server.port}", stall_s=0.1) as made,
    ):
        with pytest.raises(TeacherFault) as caught:
            await made.post("http://models.example/v1", b"{}")
    assert (caught.value.kind, caught.value.billed) == (kind, billed)


async def test_a_proxy_that_refuses_means_that_nothing_was_sent() -> None:
    """CONNECT for an https address is refused: a connection that was not made."""
    async with (
        serving(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n") as server,
        proxied(f"http://127.0.0.1:{server.port}") as made,
    ):
        with pytest.raises(TeacherFault) as caught:
            await made.post("https://models.example/v1", b"{}")
    assert (caught.value.kind, caught.value.billed) == ("connection", "no")
    assert server.requests[0].startswith(b"CONNECT models.example:443 HTTP/1.1")
