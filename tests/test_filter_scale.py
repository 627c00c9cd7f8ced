"""`filter --engine daft`: near-duplicates in stages, by processes here and on two Ray nodes."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from selfinstruct.cli.main import cli
from selfinstruct.core.errors import FolderError, SeedError, UserError
from selfinstruct.core.sections.filters import MinHashConfig
from selfinstruct.core.types import Candidate
from selfinstruct.stages import filter_scale
from selfinstruct.stages.filter_scale import filter_at_scale
from selfinstruct.steps.filters.jaccard_index import grams
from selfinstruct.steps.filters.minhash import NearDuplicate
from selfinstruct.steps.scale import components, ray_workers, similar, workers
from selfinstruct.steps.scale.parts import load, save
from selfinstruct.steps.scale.plan import Plan
from tests import scale_child
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
    return found | {"told": done.stderr}


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


def test_crowded_buckets(tmp_path: Path) -> None:
    """Texts that share four fifths of their words fill buckets: near ones are found anyway."""
    rng = random.Random(3)
    data: list[dict[str, Any]] = []
    for rank in range(700):
        words = [f"same{n}" for n in range(48)] + [f"own{rng.randrange(10**6)}" for _ in range(12)]
        if rank % 2:  # near some text that may be far from it in the bucket
            words = str(rng.choice(data)["output"]).split()
            for n in range(3):
                words[rng.randrange(48, 60)] = f"other{rank}of{n}"
        data.append({"instruction": "", "output": " ".join(words), "rank": rank})
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(data), path)
    told: list[str] = []
    filter_at_scale(path, tmp_path / "out", tell=told.append)
    assert kept(tmp_path / "out") == wanted(data)
    assert "long-pairs: 1 tasks" in told


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=12), min_size=1),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([62, 7]),
)
def test_similarity_is_that_of_sets(texts: list[list[str]], ngram: int, bits: int) -> None:
    """Of any two texts, also where the numbers of n-grams have to be numbered anew."""
    table = pa.chunked_array([pa.array([" ".join(words) for words in texts], pa.large_string())])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar, "NUMBER_BITS", bits)
        matrix = similar.gram_matrix(table, ngram)
    one, other = (np.array(ends) for ends in np.triu_indices(len(texts)))
    sets = [grams(words, ngram) for words in texts]
    pairs = zip(one, other, strict=True)
    scores = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs]
    assert similar.jaccard(matrix, one, other).tolist() == scores


def test_components_of_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths, stars, cycles and what is random, cut over several tasks: the least node of each."""
    monkeypatch.setattr(components, "TASK_EDGES", 40)
    rng = random.Random(5)
    path = rng.sample(range(1000), 100)
    star = [(1500 + n, 1499) for n in range(30)]
    random_pairs = [(rng.randrange(2000, 2100), rng.randrange(2000, 2100)) for _ in range(60)]
    cycle = [(3000 + n, 3000 + (n + 1) % 7) for n in range(7)]
    pairs = [*itertools.pairwise(path), *star, *random_pairs, *cycle]
    u, v = np.array([(a, b) for a, b in pairs if a != b]).T
    plan = Plan(tmp_path, 5, (), (), 0.7, 3, None, tmp_path)
    (tmp_path / workers.JOB).touch()
    edges = pa.table({"u": np.append(u, v), "v": np.append(v, u)})
    save(plan.file("edges", 0), edges, edges["u"].to_numpy() % 5, 5)
    here = workers.Here(lambda line: None)
    here._count = 1  # in this process
    stars = load(plan.files(components.components(here, plan, len(u))), range(5))
    found = dict(zip(stars["u"].to_pylist(), stars["v"].to_pylist(), strict=True))
    assert len(found) == stars.num_rows
    graph = csr_matrix((np.ones(len(u)), (u, v)), shape=(4000, 4000))
    labels = connected_components(graph, directed=False)[1]
    least: dict[int, int] = {}
    for node in range(4000):
        least.setdefault(labels[node], node)
    assert found == {n: least[labels[n]] for n in range(4000) if least[labels[n]] != n}


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
    filter_at_scale(tmp_path / "data.jsonl", tmp_path / "out")
    assert kept(tmp_path / "out") == [0]


def test_junk_and_copies(tmp_path: Path) -> None:
    """Thousands of copies are one text; rows without words are near nothing; one row is enough."""
    same = {"instruction": "Name three old rivers of the world", "output": "Rhine", "rank": 0}
    data = [{**same, "rank": at} for at in range(3000)]
    data += [{"output": "an answer to nothing at all that was asked", "rank": 3000}]
    data += [{"instruction": "🙂", "output": "", "rank": 3001}, {"text": "x", "rank": 3002}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data), "utf-8")
    funnel = filter_at_scale(path, tmp_path / "out")
    assert funnel.rejected == {"near_duplicate": 2999}
    assert kept(tmp_path / "out") == [0, 3000, 3001, 3002]  # without words: near nothing
    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text('{"instruction": "Name a river", "output": "Rhine", "rank": 0}', "utf-8")
    assert filter_at_scale(lonely, tmp_path / "one").rejected == {}
    assert not (tmp_path / "one" / "rejected").exists()


def test_conversations_and_rows_without_a_task(tmp_path: Path) -> None:
    """Conversations are read as in the stream, and those without a reply go by name."""
    asked = {"role": "user", "content": "Name the three oldest rivers of the whole world"}
    told = {"role": "assistant", "content": "The Finke, the Meuse and the New River"}
    again = {"role": "assistant", "content": "The Finke, the Meuse and the New River!"}
    talks = [[asked, told], [asked], [asked, again]]
    data = [{"messages": talk, "rank": at} for at, talk in enumerate(talks)]
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "data.parquet")
    funnel = filter_at_scale(tmp_path / "data.parquet", tmp_path / "out")
    assert funnel.rejected == {"missing_field": 1, "near_duplicate": 1}
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
    assert "--ray is for --engine daft" in said("-o", out, "--ray", "auto")
    assert [one.name for one in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_broken_page_is_no_traceback(tmp_path: Path) -> None:
    """A Parquet file that is whole at its end and broken in the middle is named."""
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows(300)), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[2000:3000] = bytes(1000)
    path.write_bytes(data)
    with pytest.raises(SeedError, match=r"data\.parquet: is no whole Parquet file"):
        filter_at_scale(path, tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["data.parquet"]


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """One line names the stage, as for a worker that took too much memory."""
    plan = Plan(tmp_path, 1, (), (), 0.7, 3, None, tmp_path)
    (tmp_path / workers.JOB).touch()
    here = workers.Here(lambda line: None)
    here._count = 2
    with (
        contextlib.closing(here),
        pytest.raises(UserError, match="a worker process was killed in the stage 'pairs'"),
    ):
        here.run("pairs", scale_child.die, plan, 2)


def test_a_job_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is not done again, unless other settings are asked for; nothing is left."""
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows(60)), path)
    filter_at_scale(path, tmp_path / "whole")
    done: list[str] = []
    perform = workers.perform

    def counted(stage: str, task: workers.Task, plan: Plan, number: int) -> dict[str, int]:
        def counting(plan: Plan, number: int) -> dict[str, int]:
            done.append(stage)
            if stage == "gone" and done.count("gone") == 1:
                raise KeyboardInterrupt
            return task(plan, number)

        return perform(stage, counting, plan, number)

    monkeypatch.setattr(workers, "perform", counted)
    with pytest.raises(KeyboardInterrupt):
        filter_at_scale(path, tmp_path / "out")
    assert done[0] == "texts"
    assert (tmp_path / ".out.work").is_dir()
    before, done[:] = len(done), ["gone"]
    filter_at_scale(path, tmp_path / "out")
    assert before > 8
    assert done[1:] == ["gone", "rows"]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    done[:] = []
    with pytest.raises(KeyboardInterrupt):
        filter_at_scale(path, tmp_path / "out", force=True)
    filter_at_scale(path, tmp_path / "out", config=MinHashConfig(threshold=0.9), force=True)
    assert done.count("texts") == 2
    assert len(kept(tmp_path / "out")) > len(kept(tmp_path / "whole"))
    assert {child.name for child in tmp_path.iterdir()} == {"data.parquet", "out", "whole"}


def test_a_job_that_was_stopped_at_its_end_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are there after a stop between the last task and the folder's appearance."""
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows(60)), path)
    filter_at_scale(path, tmp_path / "whole")

    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(filter_scale, "describe_folder", stopped)
        with pytest.raises(KeyboardInterrupt):
            filter_at_scale(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    filter_at_scale(path, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    """The second one is told so."""
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows(6)), path)
    (tmp_path / ".out.work").mkdir()
    with (
        filelock.FileLock(tmp_path / ".out.work" / "lock"),
        pytest.raises(FolderError, match="another process is writing this folder"),
    ):
        filter_at_scale(path, tmp_path / "out")


def files_of(out: Path) -> dict[str, bytes]:
    """The bytes of the Parquet files."""
    return {str(one.relative_to(out)): one.read_bytes() for one in out.rglob("*.parquet")}


@pytest.mark.timeout(600)
def test_a_node_that_dies_changes_nothing(tmp_path: Path) -> None:
    """Two Ray nodes, one killed in the middle of a stage: the same bytes as by processes here."""
    pytest.importorskip("ray")
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows(600, seed=2)), path, row_group_size=100)
    alone = child(path, tmp_path / "alone")
    cluster = child(path, tmp_path / "cluster", "edges", "worker")
    assert {**cluster, "told": ""} == {**alone, "told": ""}
    assert "killed in the stage edges" in cluster["told"]
    found = files_of(tmp_path / "alone")
    assert len(found) == 12
    assert files_of(tmp_path / "cluster") == found


def test_the_watch_over_nodes() -> None:
    """A node that died is told of once; a stage does not wait for ever for nodes or for tasks."""

    def node(name: str, alive: bool, cpus: float) -> dict[str, Any]:
        about = {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": alive}
        return about | {"Resources": {"CPU": cpus} if cpus else {}}

    told: list[str] = []
    nodes = [node("1", True, 0), node("2", True, 4), node("3", False, 4)]
    watch = ray_workers.Watch(nodes, told.append, now=0)
    watch.look("pairs", lambda: nodes, True, now=100)
    assert told == []
    nodes = [node("1", True, 0), node("2", False, 4)]
    watch.look("pairs", lambda: nodes, False, now=103)
    watch.look("pairs", lambda: nodes, False, now=106)
    assert told == ["pairs: the node 10.0.0.2 died; its tasks are done again"]
    with pytest.raises(UserError, match="no worker node is left in the stage 'pairs'"):
        watch.look("pairs", lambda: nodes, False, now=100 + ray_workers.EMPTY_S + 1)
    nodes = [node("4", True, 1)]
    watch.begin(1000)
    watch.look("rows", lambda: nodes, False, now=1000 + ray_workers.STALL_S)
    with pytest.raises(UserError, match="no task of the stage 'rows' has ended for 60 minutes"):
        watch.look("rows", lambda: nodes, False, now=1001 + ray_workers.STALL_S)


def test_no_cluster_there(tmp_path: Path) -> None:
    """One line says so, and nothing is left behind."""
    pytest.importorskip("ray")
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows(6)), path)
    with pytest.raises(UserError, match="--ray nowhere: no Ray cluster is reached there"):
        filter_at_scale(path, tmp_path / "out", ray="nowhere")
    assert [one.name for one in tmp_path.iterdir()] == ["data.parquet"]


def test_nothing_phones_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daft's and Ray's own switches say so after `load_daft`, and no address is opened."""
    from daft.scarf_telemetry import opted_out

    from selfinstruct.steps.scale.runner import SILENT, load_daft

    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("an address was opened")

    for name in SILENT:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    load_daft()
    assert opted_out()
    usage = pytest.importorskip("ray._common.usage.usage_lib")
    assert not usage.usage_stats_enabled()
