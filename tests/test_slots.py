"""Slots: prompts that are too long are asked again with fewer examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

import selfinstruct
from selfinstruct.core.errors import TeacherError
from selfinstruct.engine import retries
from selfinstruct.engine.ledger import Ledger
from selfinstruct.testing.fake_server import Running
from tests.runs import adds_up, digest, recipe

Start = Callable[..., Running]


def make(folder: Path, url: str, name: str, **generate: object) -> selfinstruct.Run:
    """A run whose seeds are of very different length, one of them longer than any context."""
    settings = recipe(
        folder, url, target=12, strategies=[{"kind": "json", "examples": 4}], **generate
    )
    seeds = folder / "seeds.jsonl"
    lines = [json.loads(line) for line in seeds.read_text("utf-8").splitlines()]
    for n, line in enumerate(lines):
        line["output"] = " ".join(["word"] * (20 if n else 2000))
    seeds.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    settings["filters"] = {"minhash": {"enabled": False}}
    return selfinstruct.Run.from_recipe(settings, output=folder / name)


def test_a_prompt_that_is_too_long_is_asked_again_with_fewer_examples(
    tmp_path: Path, start_fake_server: Start
) -> None:
    """The longest examples go first; the record names those that were shown in the end."""
    server = start_fake_server(context=1600)
    run = make(tmp_path, server.url, "run")
    run.generate()
    assert run.funnel().kept == 12
    assert run.funnel().failed > 0
    assert adds_up(run.funnel())
    parents = [record.candidate.parents for record in run.records()]
    assert {len(shown) for shown in parents} == {2, 4}
    assert not any("s0" in shown for shown in parents)
    with Ledger.read(run.folder.db_path) as ledger:
        spent = ledger.db.execute("SELECT sum(cost) FROM attempts WHERE outcome = 'failed'")
        assert spent.fetchone()[0] == 0


def test_what_was_asked_again_is_found_again(tmp_path: Path, start_fake_server: Start) -> None:
    """Continuing such a run asks nothing twice, refused prompts included, and ends the same."""
    server = start_fake_server(context=1600)
    whole = make(tmp_path, server.url, "whole")
    whole.generate()
    steps = make(tmp_path, start_fake_server(context=1600).url, "steps")
    for target in (3, 7, 12):
        steps.configure(f"generate.target={target}")
        steps.generate()
    assert digest(steps) == digest(whole)
    asked = [orjson.loads(received.body)["seed"] for received in server.server.requests]
    assert len(set(asked)) == len(asked)


def test_when_nothing_fits_the_run_stops(tmp_path: Path, start_fake_server: Start) -> None:
    """Where even one example is too long, the run ends with the server's own words."""
    server = start_fake_server(context=100)
    with pytest.raises(TeacherError, match=r"requests in a row failed.*context_length_exceeded"):
        make(tmp_path, server.url, "run").generate()
    assert server.server.stats.by_status["400"] >= retries.BREAKER_OVERFLOW
