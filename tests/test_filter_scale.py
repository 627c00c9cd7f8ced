"""`filter --engine daft`: near-duplicates over dataframes, in a process of their own."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from selfinstruct.cli.main import cli
from selfinstruct.core.types import Candidate
from selfinstruct.steps.filters.minhash import NearDuplicate
from tests.runs import WORDS

daft = pytest.importorskip("daft")

ROOT = Path(__file__).resolve().parent.parent


def rows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of made-up words: families of near copies, chains of them, exact copies, and junk."""
    rng = random.Random(seed)
    vocabulary = [f"{word}{n}" for word in WORDS for n in range(20)]
    found: list[dict[str, Any]] = []
    while len(found) < count:
        words = rng.choices(vocabulary, k=rng.randint(25, 40))
        for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
            cut = rng.randint(8, 12)
            found.append(
                {
                    "instruction": " ".join(words[:cut]),
                    "output": " ".join(words[cut:]),
                    "rank": len(found),
                }
            )
            words = list(words)
            for _ in range(rng.choice([0, 1, 1, 2])):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
    return found[:count]


def wanted(data: list[dict[str, Any]], threshold: float = 0.7) -> list[int]:
    """The first row of each component, by comparing all pairs."""
    from selfinstruct.steps.filters.jaccard_index import grams
    from selfinstruct.steps.words import unicode_words

    sets = [grams(unicode_words(f"{one['instruction']}\n\n{one['output']}"), 3) for one in data]
    first = list(range(len(data)))

    def find(at: int) -> int:
        while first[at] != at:
            at = first[at]
        return at

    for one, other in itertools.combinations(range(len(data)), 2):
        both = len(sets[one] & sets[other])
        if both and both / (len(sets[one]) + len(sets[other]) - both) >= threshold:
            low, high = sorted((find(one), find(other)))
            first[high] = low
    return [at for at in range(len(data)) if find(at) == at]


def child(*arguments: str | Path, timeout: float = 240) -> dict[str, Any]:
    """The funnel that `tests.scale_child` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale_child", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def kept(out: Path) -> list[int]:
    """The `rank` of the kept rows, in order."""
    parts = sorted((out / "data").glob("*.parquet"))
    return [rank for part in parts for rank in pq.read_table(part)["rank"].to_pylist()]


def test_the_first_row_of_each_component_stays(tmp_path: Path) -> None:
    """Rows, columns and order are those of all pairs compared; the rejects name the first row."""
    data = rows(700)
    data[5] = {"instruction": None, "output": data[5]["output"], "rank": 5}
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(data), path, row_group_size=50)
    funnel = child(path, tmp_path / "out")
    data[5]["instruction"] = ""
    expected = wanted(data)
    assert kept(tmp_path / "out") == expected
    assert funnel["read"] == 700
    assert funnel["kept"] == len(expected)
    assert funnel["rejected"] == {"near_duplicate": 700 - len(expected)}
    assert len(list((tmp_path / "out" / "data").glob("*.parquet"))) == 7
    assert {child.name for child in tmp_path.iterdir()} == {"data.parquet", "out"}
    gone = [
        row
        for part in sorted((tmp_path / "out" / "rejected").glob("*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]
    assert sorted(kept(tmp_path / "out") + [row["rank"] for row in gone]) == list(range(700))
    for row in gone:
        assert row["filter_row"] == f"data.parquet:{row['rank'] + 1}"
        assert int(row["filter_neighbour"].split(":")[1]) - 1 in expected
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert loaded["train"]["rank"][:] == expected


def test_how_it_differs_from_the_stream(tmp_path: Path) -> None:
    """A row near a row that went: the stream keeps it, here its component has one row."""
    words = [f"word{n}" for n in range(40)]

    def text(changed: int) -> str:
        return " ".join([f"other{n}" for n in range(changed)] + words[changed:])

    chain = [text(0), text(4), text(8)]
    judge = NearDuplicate(0.7, 3)
    stays = []
    for at, one in enumerate(chain):
        candidate = Candidate(id=str(at), slot=0, index=at, strategy="", instruction=one)
        if judge.check(candidate) is None:
            judge.add(candidate)
            stays.append(at)
    assert stays == [0, 2]
    data = [{"instruction": one, "output": "", "rank": at} for at, one in enumerate(chain)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, data)), "utf-8")
    child(tmp_path / "data.jsonl", tmp_path / "out")
    assert kept(tmp_path / "out") == [0]


def test_junk_and_copies(tmp_path: Path) -> None:
    """Thousands of copies are one text; rows without words are near nothing; one row is enough."""
    same = {"instruction": "Name three old rivers of the world", "output": "Rhine", "rank": 0}
    data = [{**same, "rank": at} for at in range(3000)]
    data += [{"output": "an answer to nothing at all that was asked", "rank": 3000}]
    data += [{"instruction": "🙂", "output": "", "rank": 3001}, {"text": "x", "rank": 3002}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data), "utf-8")
    funnel = child(path, tmp_path / "out")
    assert funnel["rejected"] == {"near_duplicate": 2999}
    assert kept(tmp_path / "out") == [0, 3000, 3001, 3002]  # without words: near nothing
    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text('{"instruction": "Name a river", "output": "Rhine", "rank": 0}', "utf-8")
    assert child(lonely, tmp_path / "one")["rejected"] == {}
    assert not (tmp_path / "one" / "rejected").exists()


def test_conversations_and_rows_without_a_task(tmp_path: Path) -> None:
    """Conversations are read as in the stream, and those without a reply go by name."""
    asked = {"role": "user", "content": "Name the three oldest rivers of the whole world"}
    told = {"role": "assistant", "content": "The Finke, the Meuse and the New River"}
    again = {"role": "assistant", "content": "The Finke, the Meuse and the New River!"}
    talks = [[asked, told], [asked], [asked, again]]
    data = [{"messages": talk, "rank": at} for at, talk in enumerate(talks)]
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "data.parquet")
    funnel = child(tmp_path / "data.parquet", tmp_path / "out")
    assert funnel["rejected"] == {"missing_field": 1, "near_duplicate": 1}
    assert kept(tmp_path / "out") == [0]


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    """Options of the stream, outputs that are no folder, and unknown layouts."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"instruction": "Name a river", "output": "Rhine"}', "utf-8")

    def said(*arguments: str) -> str:
        return str(CliRunner().invoke(cli, ["filter", str(path), *arguments]).exception)

    out, engine = str(tmp_path / "out"), ("--engine", "daft")
    assert "--explain is not for --engine daft" in said("-o", out, "--explain", *engine)
    low = ("--set", "filters.minhash.threshold=0.12")
    assert "near-duplicates from 0.13 up" in said("-o", out, *low, *engine)
    off = ("--set", "filters.minhash.enabled=false")
    assert "--engine daft does nothing else" in said("-o", out, *off, *engine)
    assert "named without ending" in said("-o", f"{out}.jsonl", *engine)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "other.parquet")
    done = CliRunner().invoke(cli, ["filter", str(tmp_path / "other.parquet"), "-o", out, *engine])
    assert 'no known layout, found the columns "text"' in str(done.exception)
    (tmp_path / "other.parquet").unlink()
    assert [one.name for one in tmp_path.iterdir()] == ["data.jsonl"]


def test_nothing_phones_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daft's own switches say so after `load_daft`, and no address is opened."""
    from daft.scarf_telemetry import opted_out

    from selfinstruct.steps.scale.runner import SILENT, load_daft

    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("an address was opened")

    for name in SILENT:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    load_daft()
    assert opted_out()
