"""The probe: whether a server follows a JSON schema is found out once, and acted upon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct.core.errors import NoProgress
from selfinstruct.engine.ledger import Ledger
from selfinstruct.testing.fake_server import Running
from tests.runs import adds_up, make


@pytest.mark.parametrize(
    ("server", "found"), [("follows", "yes"), ("ignores", "no"), ("refuses", "no")]
)
def test_what_a_server_does_with_schemas(
    tmp_path: Path, start_fake_server: Callable[..., Running], server: str, found: str
) -> None:
    """Followed, ignored or refused: later requests carry the schema only where it is followed."""
    running = start_fake_server(schemas=server)
    run = make(tmp_path, running.url, strategies=[{"kind": "json"}], target=3, give_up_after=30)
    # Without a schema the fake server may answer in prose, which is no task.
    with contextlib.suppress(NoProgress):
        run.generate()
    with Ledger.read(run.folder.db_path) as ledger:
        [(key, value)] = ledger.db.execute("SELECT * FROM meta WHERE key LIKE 'json_schema:%'")
        bodies = [row[0] for row in ledger.db.execute("SELECT body FROM requests WHERE slot >= 0")]
    assert (key, value) == ("json_schema:compatible/fake-1", found)
    assert all((b'"schema"' in body) == (found == "yes") for body in bodies)
    assert adds_up(run.funnel())


def test_it_is_asked_once_and_booked(
    tmp_path: Path, start_fake_server: Callable[..., Running]
) -> None:
    """The probe is a paid call like any other: in the bill, not repeated, and of no slot."""
    server = start_fake_server()
    run = make(tmp_path, server.url, strategies=[{"kind": "json"}], target=3)
    run.generate()
    run.configure("generate.target=6")
    run.generate()
    assert set(server.server.stats.served.values()) == {1}
    with Ledger.read(run.folder.db_path) as ledger:
        count = ledger.db.execute("SELECT count(*) FROM requests WHERE strategy = 'probe'")
        assert count.fetchone()[0] <= 2
    assert run.funnel().unjudged <= 2
