"""Where the money went: by strategy and by verdict, each to the last picodollar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct.cli.show import as_data, print_status
from selfinstruct.core.money import to_dollars
from selfinstruct.engine.accounts import spent
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.charts.bill import spending_section
from selfinstruct.testing.fake_server import Running
from selfinstruct.testing.forms import Share
from tests.runs import make


def test_both_ways_add_up(tmp_path: Path, start_fake_server: Callable[..., Running]) -> None:
    """Strategies and verdicts share the same money, also with faults and refusals."""
    server = start_fake_server(
        share=Share(bad=0.3, cut=0.1, refusals=0.1), faults={"reset_in_body": 0.05, "500": 0.05}
    )
    run = make(tmp_path, server.url)
    run.generate()
    went, counts = run.spending(), run.funnel()
    with Ledger.read(run.folder.db_path) as ledger:
        whole = spent(ledger)
    assert sum(line.cost for line in went.strategies) == whole
    assert went.kept + sum(went.rejected.values()) + went.beyond_target + went.rest == whole
    assert min(went.kept, went.rest, *(line.cost for line in went.strategies)) > 0
    assert went.rejected.keys() == counts.rejected.keys()
    asked = {line.strategy: line for line in went.strategies}
    assert {"alpaca", "self-instruct", "json", "probe"} == asked.keys()
    assert sum(line.kept for line in went.strategies) == counts.kept
    assert sum(line.candidates for line in went.strategies) == counts.candidates
    alpaca = asked["alpaca"]
    assert alpaca.per_kept == round(alpaca.cost / alpaca.kept)
    assert asked["probe"].per_kept is None


def test_it_is_shown(
    tmp_path: Path, fake_server: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status`, its JSON and the report have each strategy and the dollars of each verdict."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    went = run.spending()
    print_status(run, as_json=False)
    shown = capsys.readouterr().out
    assert "Calls by strategy" in shown
    for line in went.strategies:
        assert line.strategy in shown
    data = as_data(run)["spending_usd"]
    assert data["kept"] == to_dollars(went.kept)
    assert data["rejected"].keys() == went.rejected.keys()
    alpaca = data["strategies"]["alpaca"]
    assert alpaca["per_kept_record"] * alpaca["kept"] == pytest.approx(alpaca["cost"])
    page = spending_section(went)
    assert "Per kept record" in page
    for reason in went.rejected:
        assert reason.replace("_", " ") in page


def test_a_free_run_has_nothing_to_show(tmp_path: Path, fake_server: Running) -> None:
    """Without a price there is no table of zeros."""
    run = make(tmp_path, fake_server.url, target=5)
    run.generate()
    went = run.spending()
    assert spending_section(went) != ""
    free = type(went)(strategies=[], kept=0, rejected={}, beyond_target=0, rest=0)
    assert spending_section(free) == ""
