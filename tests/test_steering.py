"""Steering: nothing changes while the yield holds, and the same slots steer the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.core.types import Request
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.steering import Course, MarginalPrice, SlotYield, Steering
from selfinstruct.testing.fake_server import Running
from tests.runs import digest, recipe

NAMES = ["alpaca", "json"]
SEEDS = [f"s{n}" for n in range(10)]


def slot(strategy: str, candidates: int, kept: int, parents: tuple[str, ...] = ()) -> SlotYield:
    """A judged slot."""
    return SlotYield(strategy, candidates, kept, 100, parents)


def steering(*spans: list[SlotYield]) -> Steering:
    """A run that has seen these spans of ten slots."""
    made = Steering(NAMES, SEEDS, span=10)
    for span in spans:
        for judged in span:
            made.observe(judged)
    return made


GOOD = [slot("alpaca", 10, 8)] * 10
POOR = [slot("alpaca", 10, 3)] * 10
BARREN = [slot("alpaca", 10, 0)] * 10


def test_a_steady_yield_changes_nothing() -> None:
    """While the share kept holds, slots ask as the recipe says."""
    course = steering(GOOD, GOOD, GOOD).course(30)
    assert course == Course()


def test_a_falling_yield_asks_differently() -> None:
    """Less than half of the best share: two more machine examples, warmer, other seeds."""
    worn = [slot("alpaca", 10, 3, ("s0", "s1", "s2", "s3", "s4"))] * 10
    course = steering(GOOD, worn).course(20)
    assert (course.level, course.machine, round(course.warmer, 2)) == (2, 2, 0.2)
    assert course.seeds == frozenset(SEEDS[5:])


def test_weights_follow_the_yield() -> None:
    """The strategy that still brings records is asked more often, and no strategy never."""
    mixed = [slot("alpaca", 10, 0)] * 7 + [slot("json", 2, 2)] * 3
    favour = steering(GOOD, mixed).course(20).favour
    assert favour["json"] > 1 > favour["alpaca"] > 0


def test_a_recovered_yield_returns_to_the_recipe() -> None:
    """The course is not a ratchet."""
    made = steering(GOOD, BARREN, GOOD)
    assert made.course(20).level == 3
    assert made.course(30).level == 0


YIELDS = st.builds(
    slot,
    st.sampled_from(NAMES),
    st.integers(0, 12),
    st.integers(0, 4),
    st.lists(st.sampled_from(SEEDS), max_size=3).map(tuple),
)


@given(st.lists(YIELDS, min_size=1, max_size=60), st.data())
def test_only_what_is_in_sight_steers(slots: list[SlotYield], data: st.DataObject) -> None:
    """Slots judged later, and how often the course is asked for, make no difference."""
    seen = data.draw(st.integers(0, len(slots)))
    early, late = steering(slots[:seen]), steering(slots)
    for step in range(0, seen, 7):
        late.course(step)
    assert early.course(seen) == late.course(seen)


def test_the_marginal_price() -> None:
    """Over the last slots only, with no verdict before there are enough of them."""
    price = MarginalPrice(limit=400, span=4)
    for _ in range(3):
        price.observe(slot("alpaca", 5, 0))
    assert not price.too_dear
    price.observe(slot("alpaca", 5, 2))
    assert price.price == 200
    assert not price.too_dear
    for _ in range(4):
        price.observe(slot("alpaca", 5, 0))
    assert price.too_dear
    free = MarginalPrice(limit=None, span=1)
    free.observe(SlotYield("json", 1, 0, 0, ()))
    assert (free.price, free.too_dear) == (0.0, False)


def requests_of(run: selfinstruct.Run) -> dict[int, Request]:
    """The run's writing requests by slot."""
    with Ledger.read(run.folder.db_path) as ledger:
        ids = ledger.db.execute("SELECT id FROM requests WHERE slot >= 0 AND step = 0").fetchall()
        found = [ledger.request(row[0]) for row in ids]
    return {request.slot: request for request in found if request is not None}


def test_a_run_that_wears_out_its_seeds_asks_otherwise(
    tmp_path: Path, start_fake_server: Callable[..., Running]
) -> None:
    """Later slots are warmer and shown machine examples, the same ones at any concurrency."""
    runs = []
    for concurrency in (2, 24):
        server = start_fake_server(latency_ms=2, sigma=1.0)
        settings = recipe(tmp_path, server.url, concurrency=concurrency, target=150, window=32)
        settings["generate"]["strategies"] = [
            {"kind": "json", "examples": 2},
            {"kind": "alpaca", "tasks_per_request": 5, "examples": 2},
        ]
        settings["filters"] = {"rouge": {"threshold": 0.4}}  # so that little is new
        run = selfinstruct.Run.from_recipe(settings, output=tmp_path / f"run-{concurrency}")
        run.generate()
        runs.append(run)
    assert digest(runs[0]) == digest(runs[1])
    first, second = map(requests_of, runs)
    both = first.keys() & second.keys()
    assert {slot: first[slot].id for slot in both} == {slot: second[slot].id for slot in both}
    early, late = first[0], first[max(both)]
    assert (late.sampling.temperature or 0) > (early.sampling.temperature or 0)
    seeds = {seed.id for seed in runs[0].seeds()}
    assert all(parent in seeds for parent in early.parents)
    assert any(parent not in seeds for n in both if n > 160 for parent in first[n].parents)
