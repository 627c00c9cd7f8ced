"""A judge's scores: reading them, asking for them, paying for them once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.core.errors import CapReached, PrivacyError, RecipeError
from selfinstruct.core.types import Sampling, SeedTask
from selfinstruct.engine.accounts import funnel
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.scores.judge import QUESTIONS, Judge, asked_for, number_in
from selfinstruct.testing import batches
from selfinstruct.testing.fake_server import Running
from tests import runs
from tests.test_kill import server_process

START = Callable[..., Running]
TASK = SeedTask(id="t", instruction="Name a {{input}} river.", input="long", output="The Rhine.")


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ('{"score": 4}', 4),
        ('Sure!\n```json\n{"score": "3.5", "why": "clear"}\n```', 3.5),
        ('{"reason": "two of 3 facts"} {"rating": 2}', 2),
        ("Score: 4/5\nIt is right.", 4),
        ("**Score:** 5", 5),
        ("The score (0-5) is 3.", 3),
        ("4.5\nAn explanation of 20 words follows.", 4.5),
        ("It is fine.\n\n**3**", 3),
        ("3/5", 3),
        ("The answer has 3 sentences and 12 words.", None),
        ("", None),
        ('{"score": true}', None),
        ('{"score": null}', None),
        ("I would not like to rate this.", None),
    ],
)
def test_a_score_is_read_out_of_many_forms(reply: str, number: float | None) -> None:
    """JSON, the word score, or a number alone on a line; never a number in a sentence."""
    assert number_in(reply) == number


@given(st.text(max_size=400))
def test_any_reply_gives_a_score_on_offer_or_none(reply: str) -> None:
    """Whatever a judge writes, what is read is one of the allowed values."""
    judge = Judge(
        "rubric", teacher="t", model="m", sampling=Sampling(max_tokens=9), structured=True
    )
    value = judge.read(reply)
    assert value is None or value in QUESTIONS["rubric"].allowed


def test_a_value_that_was_not_on_offer_is_none() -> None:
    """7 of 6, or half a point where only whole ones are allowed."""
    judge = Judge(
        "quality", teacher="t", model="m", sampling=Sampling(max_tokens=9), structured=True
    )
    assert judge.read('{"score": 6}') == 6
    assert judge.read('{"score": 7}') is None
    assert judge.read('{"score": 2.5}') is None


def test_requests_follow_from_the_record() -> None:
    """The same record is the same request, another try another one; a record's braces are text."""
    sampling = Sampling(max_tokens=64, temperature=0.0)
    judge = Judge("quality", teacher="t", model="m", sampling=sampling, structured=True)
    first = judge.request(TASK)
    assert first == judge.request(TASK)
    assert judge.request(TASK, 1).id != first.id
    assert judge.request(TASK, 1).sampling.temperature == 0.7
    assert "Name a {{input}} river." in first.messages[-1].content
    assert "The Rhine." in first.messages[-1].content
    assert first.sampling.schema is not None
    assert first.sampling.schema["properties"]["score"]["enum"] == [1, 2, 3, 4, 5, 6]
    assert asked_for(["deita", "quality", "ifd"]) == ["complexity", "quality"]


@pytest.fixture
def run(tmp_path: Path, fake_server: Running) -> selfinstruct.Run:
    """A finished run of 20 records."""
    made = runs.make(tmp_path, fake_server.url, target=20)
    made.generate()
    return made


def test_a_judge_is_asked_once_and_billed_as_score(run: selfinstruct.Run) -> None:
    """DEITA's score is the product; another selection asks nothing; the funnel stays as it was."""
    before, spent = run.funnel(), sum(line.cost for line in run.bill())
    run.configure("select={method: top_k, score: deita, count: 5, scores: [quality, complexity]}")
    first = run.select()
    assert all(spread.missing == 0 for spread in first.scores.values())
    with Ledger.read(run.folder.db_path) as ledger:
        asked = Counter(r[0] for r in ledger.db.execute("SELECT strategy FROM requests"))
        assert funnel(ledger) == before
    assert asked["judge:quality"] == asked["judge:complexity"] == 20
    lines = [line for line in run.bill() if line.stage == "score"]
    assert {line.unit for line in lines} == {"requests", "tokens in", "tokens out"}
    assert sum(line.cost for line in run.bill()) == spent + sum(line.cost for line in lines) > spent
    run.configure("select.count=7", "select.scores=[quality]")
    assert run.select().selected == 7
    with Ledger.read(run.folder.db_path) as ledger:
        again = Counter(r[0] for r in ledger.db.execute("SELECT strategy FROM requests"))
    assert again == asked


def test_a_judge_that_writes_prose_is_asked_again(tmp_path: Path, start_fake_server: START) -> None:
    """Without schemas, replies without a score are asked for again; all are scored in the end."""
    server = start_fake_server(schemas="ignores")
    settings = dataset_settings(server.url, tries=10)
    out = tmp_path / "out"
    summary = selfinstruct.select_dataset(dataset(tmp_path), out, settings)
    assert summary.scores["rubric"].missing == 0
    with Ledger.read(out / "run.db") as ledger:
        samples = Counter(
            json.loads(row[0]).get("sample", 0)
            for row in ledger.db.execute("SELECT body FROM requests WHERE strategy LIKE 'judge:%'")
        )
    assert samples[0] == 12
    assert 0 < samples[1] < 12


def test_the_cap_stops_a_judge_and_more_money_goes_on(tmp_path: Path, fake_server: Running) -> None:
    """Nothing is spent past the cap; raised, only what is missing is asked for."""
    settings = dataset_settings(fake_server.url) | {"generate": {"max_cost": "0.002"}}
    source, out = dataset(tmp_path), tmp_path / "out"
    with pytest.raises(CapReached):
        selfinstruct.select_dataset(source, out, settings)
    assert not (out / "selection.json").exists()
    with Ledger.read(out / "run.db") as ledger:
        done = ledger.db.execute("SELECT count(*), sum(cost) FROM completions").fetchone()
        lost = ledger.db.execute("SELECT count(*) FROM attempts WHERE outcome != 'ok'").fetchone()
    assert 0 < done[0] < 13
    assert done[1] <= 2_000_000_000
    assert lost[0] == 0
    settings["generate"]["max_cost"] = "1"
    selfinstruct.select_dataset(source, out, settings)
    with Ledger.read(out / "run.db") as ledger:
        attempts = ledger.db.execute("SELECT count(*) FROM attempts").fetchone()[0]
        answered = ledger.db.execute("SELECT count(*) FROM completions").fetchone()[0]
    assert attempts == answered


def test_a_private_seed_keeps_records_from_a_remote_judge(
    tmp_path: Path, fake_server: Running
) -> None:
    """A judge elsewhere is refused, like a teacher, unless the owner gave leave."""
    made = runs.make(tmp_path, fake_server.url, target=5)
    made.generate()
    judge = {"kind": "compatible", "base_url": "http://judge.example/v1", "model": "j"}
    settings = {"method": "top_k", "score": "rubric", "judge": {"teacher": judge}}
    made.configure(
        f"select={json.dumps(settings)}", "seeds.0.private=true", "generate.no_price=true"
    )
    with pytest.raises(PrivacyError, match="private source"):
        made.select()


def test_a_dataset_needs_a_judge_by_name(tmp_path: Path) -> None:
    """Without a recipe there is nobody to ask, and a judge without a batch API has none."""
    source = dataset(tmp_path)
    with pytest.raises(RecipeError, match=r"select\.judge\.teacher is missing"):
        selfinstruct.select_dataset(
            source, tmp_path / "out", {"select": {"method": "top_k", "score": "rubric"}}
        )
    settings = dataset_settings("http://127.0.0.1:9")
    settings["select"]["judge"]["batch"] = True
    with pytest.raises(RecipeError, match="has no batch API"):
        selfinstruct.select_dataset(source, tmp_path / "out", settings)


def test_a_batch_scores_what_single_calls_would(
    tmp_path: Path, start_fake_server: START, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the batch API: every record once, at half the price, under the same requests."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = start_fake_server(batch=batches.Options(seconds=0.1))
    settings = dataset_settings(server.url)
    settings["select"]["judge"]["teacher"]["kind"] = "openai"
    source = dataset(tmp_path)
    single = selfinstruct.select_dataset(source, tmp_path / "single", settings)
    settings["select"]["judge"]["batch"] = True
    batched = selfinstruct.select_dataset(source, tmp_path / "batched", settings)
    assert batched == single
    costs = {}
    for name in ("single", "batched"):
        with Ledger.read(tmp_path / name / "run.db") as ledger:
            costs[name] = ledger.db.execute(
                "SELECT r.id, c.cost FROM requests r JOIN completions c ON c.request_id = r.id"
                " WHERE r.strategy LIKE 'judge:%' ORDER BY 1"
            ).fetchall()
    assert [i for i, _ in costs["single"]] == [i for i, _ in costs["batched"]]
    assert sum(c for _, c in costs["batched"]) * 2 == sum(c for _, c in costs["single"])


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_kills_cost_nothing_that_was_answered(tmp_path: Path) -> None:
    """Killed again and again, the selection is that of a run without kills, and each request is
    answered once, but for what was in flight."""
    source = dataset(tmp_path, 60)
    with server_process("--latency-ms", "200") as url:
        settings = dataset_settings(url)
        config = tmp_path / "judge.yaml"
        whole = {"seeds": [str(source)], "teacher": settings["select"]["judge"]["teacher"]}
        config.write_text(yaml.safe_dump(whole | settings), "utf-8")
        out = tmp_path / "out"
        command = [sys.executable, "-m", "selfinstruct", "select", str(source)]
        command += ["-o", str(out), "--recipe", str(config)]
        killed, ended = 0, None
        while ended is None and killed < 8:
            with subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    ended = process.wait(2.5)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    killed += 1
        subprocess.run(command, check=True, capture_output=True)
        plain = selfinstruct.select_dataset(source, tmp_path / "plain", settings)
    assert (
        json.loads((out / "selection.json").read_bytes())["scores"]
        == json.loads((tmp_path / "plain" / "selection.json").read_bytes())["scores"]
    )
    assert plain.scores["rubric"].missing == 0
    with Ledger.read(out / "run.db") as ledger:
        ok, lost = (
            ledger.db.execute(
                f"SELECT count(*) FROM attempts WHERE outcome {sign} 'ok'"
            ).fetchone()[0]
            for sign in ("=", "!=")
        )
        answered = ledger.db.execute("SELECT count(*) FROM completions").fetchone()[0]
    assert ok == answered >= 60
    assert killed
    assert lost <= killed * 4


def dataset(folder: Path, count: int = 12) -> Path:
    """A dataset of different records."""
    path = folder / "data.jsonl"
    rows = [
        {
            "instruction": f"Describe the {runs.WORDS[n % 20]} number {n}",
            "output": f"It is a {runs.WORDS[(n + 7) % 20]}.",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def dataset_settings(url: str, **judge: Any) -> dict[str, Any]:
    """A rubric by the server at `url`."""
    teacher = {
        "kind": "compatible",
        "base_url": f"{url}/v1",
        "model": "fake-1",
        "concurrency": 4,
        "timeout_s": 20,
    }
    return {
        "select": {
            "method": "top_k",
            "score": "rubric",
            "count": 4,
            "judge": {"teacher": teacher, "max_tokens": 64} | judge,
        },
        "prices": {"fake-1": {"input": 1, "output": 2, "batch": 0.5}},
    }
