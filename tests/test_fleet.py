"""Several servers of one model: balance, members that die and come back, all of them out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from selfinstruct.core.errors import PrivacyError, TeacherFault
from selfinstruct.core.ids import make_request
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Completion, Message, Request, Sampling
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers import fleet
from selfinstruct.steps.teachers.build import make_teacher
from selfinstruct.steps.teachers.compatible import CompatibleTeacher
from selfinstruct.steps.teachers.fleet import Fleet
from selfinstruct.testing.fake_server import Running
from selfinstruct.testing.mortal import Mortal

Start = Callable[..., Running]
REFUSED = TeacherFault("connection", "refused")
RESET = TeacherFault("connection", "reset", billed="maybe")
BROKEN = TeacherFault("overloaded", "HTTP 500", status=500)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(n: int) -> Request:
    return make_request(
        teacher="compatible/m",
        model="m",
        sampling=Sampling(max_tokens=60),
        messages=(Message("user", f"Question {n}?"),),
        sample=n,
    )


async def ask_all(teacher: CompatibleTeacher, numbers: range) -> list[Completion]:
    return list(await asyncio.gather(*(teacher(ask(n)) for n in numbers)))


def teacher_of(*urls: str, **options: object) -> CompatibleTeacher:
    bases = [f"{url}/v1" for url in urls]
    return CompatibleTeacher(id="compatible/m", model="m", base_url=bases, **options)


# -- who takes the next call --------------------------------------------------------------------


def test_the_one_with_the_fewest_open_calls_takes_the_next() -> None:
    """A server that is slow keeps its calls longer and so gets fewer; equals take turns."""
    servers = Fleet(["a", "b", "c"])
    taken = [servers.take() for _ in range(6)]
    assert sorted(member.base for member in taken) == ["a", "a", "b", "b", "c", "c"]
    slow = taken[0]
    for member in taken[1:]:
        if member is not slow:
            servers.done(member, None)
    assert slow not in {servers.take() for _ in range(2)}


def test_a_refused_connection_leaves_a_server_out_and_a_reset_does_not() -> None:
    """Nobody listens there; a reset or an error may be one call's bad luck, three in a row not."""
    servers = Fleet(["a", "b"])
    bad = servers.take()
    servers.done(bad, REFUSED)
    assert all(servers.take() is not bad for _ in range(5))
    for fault in (RESET, BROKEN):
        servers = Fleet(["a", "b"])
        bad = servers.members[0]
        for _ in range(fleet.FAILURES - 1):
            bad.open += 1
            servers.done(bad, fault)
        assert bad.outs == 0
        bad.open += 1
        servers.done(bad, fault)
        assert bad.outs == 1


def test_one_call_tries_again_and_the_pause_doubles() -> None:
    """A server that is out is probed by a single call each time; a good reply lets it in again."""
    clock = Clock()
    servers = Fleet(["a", "b"], clock)
    bad = servers.members[0]
    bad.open += 1
    servers.done(bad, REFUSED)
    pauses = []
    for _ in range(9):
        before = clock.now
        while servers.take() is not bad:
            clock.now += 0.25
        pauses.append(clock.now - before)
        assert servers.take() is not bad  # not for a second call at the same time
        servers.done(bad, REFUSED)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    clock.now += 60
    assert servers.take() is bad
    servers.done(bad, None)
    assert bad.outs == 0


def test_where_all_are_out_one_is_asked_all_the_same() -> None:
    """The run decides how long to wait for a server, not the fleet; one server is never out."""
    servers = Fleet(["a", "b"])
    for member in servers.members:
        member.open += 1
        servers.done(member, REFUSED)
    assert servers.take() in servers.members
    assert not servers.others([])
    alone = Fleet(["a"])
    for _ in range(5):
        alone.done(alone.take(), REFUSED)
    assert alone.take() is alone.members[0]


# -- over HTTP ----------------------------------------------------------------------------------


async def test_calls_are_shared(start_fake_server: Start) -> None:
    """Every server works, and a slow one gets less to do than any other."""
    servers = [start_fake_server(latency_ms=5) for _ in range(3)]
    slow = start_fake_server(latency_ms=150)
    teacher = teacher_of(*(server.url for server in [*servers, slow]), concurrency=16)
    await teacher.start()
    try:
        gate = asyncio.Semaphore(16)

        async def call(n: int) -> None:
            async with gate:
                await teacher(ask(n))

        await asyncio.gather(*(call(n) for n in range(200)))
    finally:
        await teacher.close()
    shares = [server.server.stats.calls for server in servers]
    assert sum(shares) + slow.server.stats.calls == 200
    assert min(shares) > slow.server.stats.calls > 0


async def test_a_member_that_dies_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls go to the others without a fault; when it serves again it gets its share."""
    monkeypatch.setattr(fleet, "OUT_S", 0.1)
    with ExitStack() as stack:
        servers = [stack.enter_context(Mortal()) for _ in range(3)]
        teacher = teacher_of(*(server.url for server in servers))
        await teacher.start()
        try:
            await ask_all(teacher, range(30))
            await asyncio.to_thread(servers[0].kill)
            # Kept connections may break once; what could not even be sent goes elsewhere.
            outcomes = await asyncio.gather(
                *(teacher(ask(n)) for n in range(30, 60)), return_exceptions=True
            )
            faults = [outcome for outcome in outcomes if not isinstance(outcome, Completion)]
            assert all(isinstance(f, TeacherFault) and f.billed == "maybe" for f in faults)
            assert len(await ask_all(teacher, range(60, 120))) == 60
            await asyncio.to_thread(servers[0].revive)
            await asyncio.sleep(0.5)
            await ask_all(teacher, range(120, 121))
            await ask_all(teacher, range(121, 160))
            assert servers[0].server.stats.calls >= 5
        finally:
            await teacher.close()


async def test_a_member_that_only_fails_is_left_out(start_fake_server: Start) -> None:
    """After three 5xx replies in a row the others do the work."""
    good, bad = start_fake_server(), start_fake_server(faults={"503": 1.0})
    teacher = teacher_of(good.url, bad.url)
    await teacher.start()
    try:
        outcomes = [
            (await asyncio.gather(teacher(ask(n)), return_exceptions=True))[0] for n in range(40)
        ]
        kinds = [outcome.kind for outcome in outcomes if isinstance(outcome, TeacherFault)]
        assert kinds == ["overloaded"] * fleet.FAILURES
        assert bad.server.stats.calls == fleet.FAILURES
    finally:
        await teacher.close()


async def test_all_out_is_a_connection_fault() -> None:
    """Only when no server can be connected to does the call fail, and it costs nothing."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Mortal()) for _ in range(2)]
        for server in servers:
            await asyncio.to_thread(server.kill)
        teacher = teacher_of(*(server.url for server in servers))
        await teacher.start()
        try:
            for _ in range(3):
                with pytest.raises(TeacherFault) as caught:
                    await teacher(ask(0))
                assert (caught.value.kind, caught.value.billed) == ("connection", "no")
            await asyncio.to_thread(servers[1].revive)
            assert (await teacher(ask(0))).text
        finally:
            await teacher.close()


async def test_the_user_header_is_asked_of_a_server_that_is_there(start_fake_server: Start) -> None:
    """Also where the first one is not."""
    good = start_fake_server()
    with Mortal() as dead:
        await asyncio.to_thread(dead.kill)
        teacher = teacher_of(dead.url, good.url)
        await teacher.start()
        try:
            assert (await teacher.user_header()).endswith("<|im_start|>user\n")
        finally:
            await teacher.close()


# -- in a recipe --------------------------------------------------------------------------------


def test_a_recipe_may_list_servers() -> None:
    """The teacher's name, and with it the ids of its requests, does not depend on addresses."""
    bases = ["http://localhost:8000/v1", "http://localhost:8001/v1"]
    several = make_teacher(TeacherConfig(kind="compatible", model="m", base_url=bases), Policy())
    one = make_teacher(TeacherConfig(kind="compatible", model="m", base_url=bases[0]), Policy())
    assert isinstance(several, CompatibleTeacher)
    assert [member.base for member in several.fleet.members] == bases
    assert several.id == one.id


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "openai", "base_url": ["http://a/v1"]}, "for a teacher of kind compatible"),
        ({"kind": "compatible", "base_url": ["http://a/v1"] * 2}, "names a server twice"),
        ({"kind": "compatible", "base_url": []}, "needs base_url"),
    ],
)
def test_a_bad_list_is_refused(settings: dict[str, object], says: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=says):
        TeacherConfig.model_validate({"model": "m", **settings})


def test_every_server_must_be_allowed() -> None:
    """Under privacy: local one remote server in the list is enough to refuse."""
    bases = ["http://localhost:8000/v1", "http://models.example/v1"]
    config = TeacherConfig(kind="compatible", model="m", base_url=bases)
    with pytest.raises(PrivacyError, match=r"models\.example"):
        make_teacher(config, Policy(local=True))
