"""kill -9 at random moments: the same dataset in the end, and no finished call paid for twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfinstruct.api import Run
from selfinstruct.engine.ledger import Ledger
from tests.runs import adds_up, digest, make, recipe

KILLS = 30
CONCURRENCIES = (8, 1, 64)


@contextlib.contextmanager
def server_process(*arguments: str) -> Iterator[str]:
    """The fake server in a process of its own; its address."""
    command = [sys.executable, "-m", "selfinstruct.testing.fake_server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def stats(url: str) -> dict[str, Any]:
    """What the server counted."""
    with urllib.request.urlopen(f"{url}/stats") as reply:
        return json.load(reply)  # type: ignore[no-any-return]


def generate_and_kill(config: Path, output: Path, seconds: float, concurrency: int) -> int | None:
    """Run the command for a while and kill it; its exit code if it ended before."""
    command = [sys.executable, "-m", "selfinstruct", "generate", str(config), "-o", str(output)]
    command += ["--set", f"teacher.concurrency={concurrency}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return None


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_thirty_kills_change_nothing(tmp_path: Path) -> None:
    """Killed thirty times at changing concurrency, a run of over 500 requests ends as if never.

    The server counts: a call is answered again only if it was in flight at a kill, and all of
    those are reported as possibly billed.
    """
    with server_process("--latency-ms", "60", "--sigma", "0.7", "--bad", "0.15") as url:
        settings = {"target": 900, "window": 96}
        plain = make(tmp_path, url, "plain", concurrency=16, **settings)
        plain.generate()
        expected = digest(plain)
        assert plain.funnel().requests >= 500

    with server_process("--latency-ms", "60", "--sigma", "0.7", "--bad", "0.15") as url:
        config = tmp_path / "recipe.yaml"
        config.write_text(yaml.safe_dump(recipe(tmp_path, url, **settings)), "utf-8")
        output = tmp_path / "killed"
        rng = random.Random(7)
        kills = 0
        for attempt in range(KILLS):
            # Most moments lie in the run itself, some while it starts.
            seconds = rng.choice([rng.uniform(0.1, 0.5), rng.uniform(0.6, 1.1)])
            code = generate_and_kill(config, output, seconds, CONCURRENCIES[attempt % 3])
            kills += code is None
        # Whatever is left, at a concurrency of its own.
        assert generate_and_kill(config, output, 120, 8) == 0
        assert kills == KILLS, "the run ended before all kills: make it longer"
        run = Run(output)
        assert digest(run) == expected
        assert adds_up(run.funnel())
        served = stats(url)["served"]
        with Ledger.read(run.folder.db_path) as ledger:
            lost = ledger.db.execute(
                "SELECT count(*) FROM attempts WHERE outcome = 'lost'"
            ).fetchone()[0]
            finished = ledger.db.execute("SELECT count(*) FROM completions").fetchone()[0]
            twice = ledger.db.execute(
                "SELECT count(*) FROM (SELECT request_id FROM attempts WHERE outcome = 'ok'"
                " GROUP BY 1 HAVING count(*) > 1)"
            ).fetchone()[0]
        assert twice == 0
        # Each completion was served; what was served besides was in flight at a kill, and said so.
        assert finished <= sum(served.values()) <= finished + lost
        calls = stats(url)["calls"]
        Run(output).generate()
        assert stats(url)["calls"] == calls


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_signal_stops_cleanly(tmp_path: Path) -> None:
    """SIGINT ends with exit code 130 after the calls in flight, and the same command continues."""
    with server_process("--latency-ms", "50") as url:
        config = tmp_path / "recipe.yaml"
        config.write_text(yaml.safe_dump(recipe(tmp_path, url, target=200, window=64)), "utf-8")
        command = [sys.executable, "-m", "selfinstruct", "generate", str(config)]
        command += ["-o", str(tmp_path / "run")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 30
            while stats(url)["calls"] < 20 and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "finishing the calls in flight" in said
        assert "the same command continues" in said
        assert Run(tmp_path / "run").funnel().lost == 0
        done = subprocess.run(command, capture_output=True, timeout=120)
        assert done.returncode == 0
        assert set(stats(url)["served"].values()) == {1}


FULL = """
import sys
from selfinstruct.cli.main import main
sys.argv = ["selfinstruct", "generate", sys.argv[1], "-o", sys.argv[2]]
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_stops_and_continues(tmp_path: Path) -> None:
    """When the ledger cannot grow the run ends with exit code 5; with room it goes on as before."""
    with server_process() as url:
        plain = make(tmp_path, url, "plain", target=150)
        plain.generate()
        config = tmp_path / "recipe.yaml"
        config.write_text(yaml.safe_dump(recipe(tmp_path, url, target=150)), "utf-8")
        command = [sys.executable, "-c", FULL, str(config), str(tmp_path / "full")]
        limited = ["sh", "-c", 'ulimit -f 3000; exec "$@"', "sh", *command]
        stopped = subprocess.run(limited, capture_output=True, text=True, timeout=120)
        assert stopped.returncode == 5, stopped.stderr
        assert "cannot write the ledger" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
        assert digest(Run(tmp_path / "full")) == digest(plain)
