"""The stage select: from a run and from any dataset, and what dataset and training make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import selfinstruct
from selfinstruct.core.errors import FolderError, RecipeError, SeedError, UserError
from selfinstruct.engine.selection_folder import read_selection, read_standings
from selfinstruct.steps.embedding.minilm import MiniLM
from selfinstruct.steps.embedding.vectors import Vectors
from selfinstruct.testing.fake_server import Running
from tests import runs

TEXTS = [
    ("Explain how photosynthesis works.", "Plants turn light into sugar."),
    ("Describe the process by which plants turn sunlight into food.", "They use light. " * 4),
    ("Write a poem about autumn.", "Leaves fall, and fall again, and the year grows old."),
    ("List three rivers.", "Rhine, Nile, Amazon."),
    ("Give the plural of goose.", "Geese."),
    ("Write a letter to the landlord.", "Dear Sir, the roof leaks. Please mend it soon."),
]


def write_dataset(path: Path) -> Path:
    """A dataset of `TEXTS` as JSON lines, with a column of its own."""
    rows = [
        {"instruction": asked, "output": told, "mine": number}
        for number, (asked, told) in enumerate(TEXTS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows that a selection from a dataset wrote."""
    lines = (folder / "data" / "train-00000-of-00001.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


# -- from a run -----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, fake_server: Running) -> selfinstruct.Run:
    """A finished run of 40 records."""
    made = runs.make(tmp_path, fake_server.url)
    made.generate()
    return made


def train_ids(run: selfinstruct.Run) -> list[str]:
    """The ids in both splits of the run's dataset."""
    paths = sorted((run.folder.dataset / "data").glob("*.parquet"))
    return [row["id"] for path in paths for row in pq.read_table(path).to_pylist()]


def test_a_run_selects_and_its_dataset_follows(run: selfinstruct.Run) -> None:
    """Only selected records are in the dataset, with their scores; the rest is counted."""
    run.configure("select={method: top_k, count: 12, score: output_words}")
    summary = run.select()
    assert (summary.candidates, summary.selected) == (40, 12)
    assert summary.left == {"not_needed": 28}
    written = run.write_dataset()
    assert written.train + written.held_out == 12
    assert written.not_selected == 28
    words = {r.candidate.id: len(r.candidate.output.split()) for r in run.records()}
    chosen = set(train_ids(run))
    assert min(words[i] for i in chosen) >= max(n for i, n in words.items() if i not in chosen)
    path = next((run.folder.dataset / "data").glob("train*.parquet"))
    for row in pq.read_table(path).to_pylist():
        assert row["score_output_words"] == words[row["id"]]
    card = (run.folder.dataset / "README.md").read_text("utf-8")
    assert "those with the highest output_words, at most 12 records" in card


def test_export_selects_by_itself_and_only_when_needed(run: selfinstruct.Run) -> None:
    """Writing the dataset brings the selection up to date; then neither is made again."""
    run.configure("select={method: random, count: 5}")
    first = run.write_dataset()
    made = (run.folder.selection / "selection.json").stat().st_mtime_ns
    assert run.write_dataset() == first
    assert (run.folder.selection / "selection.json").stat().st_mtime_ns == made
    run.configure("select.count=6")
    again = run.write_dataset()
    assert again.fingerprint != first.fingerprint
    assert again.train + again.held_out == 6
    run.configure("select=null")
    assert run.write_dataset().not_selected == 0


def test_a_stale_selection_is_not_used(run: selfinstruct.Run) -> None:
    """The dataset stage alone refuses a selection of other settings, and says what to run."""
    from selfinstruct.stages.dataset import write_dataset

    run.configure("select={method: random, count: 5}")
    with pytest.raises(FolderError, match="not made yet; run: selfinstruct select"):
        write_dataset(run.folder)
    run.select()
    run.configure("select.count=6")
    with pytest.raises(FolderError, match="of other settings, records or models"):
        write_dataset(run.folder)


def test_the_same_selection_each_time(run: selfinstruct.Run) -> None:
    """Made again by force, the files hold the same bytes."""
    run.configure("select={method: k_center, count: 7, quota: 2, scores: [output_mtld]}")
    run.select()
    before = (run.folder.selection / "scores.parquet").read_bytes()
    run.select(force=True)
    assert (run.folder.selection / "scores.parquet").read_bytes() == before
    standings = list(read_standings(run.folder.selection / "scores.parquet"))
    assert sorted(s.rank for s in standings if s.rank) == list(range(1, 8))
    assert all(bool(s.reason) != bool(s.rank) for s in standings)


def test_a_run_without_settings_or_records_says_so(run: selfinstruct.Run, tmp_path: Path) -> None:
    """The error names the section that is missing, or the stage that comes first."""
    with pytest.raises(FolderError, match="has no section select"):
        run.select()
    fresh = selfinstruct.Run.from_recipe(
        run.recipe.model_dump(mode="json") | {"select": {"method": "random"}},
        output=tmp_path / "fresh",
    )
    with pytest.raises(FolderError, match="nothing was generated yet"):
        fresh.select()


# -- from a dataset -------------------------------------------------------------------------------


def test_a_dataset_selects_into_a_folder(tmp_path: Path) -> None:
    """Rows come out as they were, in their order, with scores; the summary adds up."""
    source, out = write_dataset(tmp_path / "data.jsonl"), tmp_path / "out"
    settings = {"select": {"method": "top_k", "score": "output_words", "count": 3}}
    summary = selfinstruct.select_dataset(source, out, settings)
    assert summary.selected + sum(summary.left.values()) == summary.candidates == 6
    rows = rows_of(out)
    assert [row["mine"] for row in rows] == [1, 2, 5]
    assert rows[0]["score_output_words"] == 12
    assert read_selection(out) == summary
    assert selfinstruct.select_dataset(source, out, settings) == summary


def test_meaning_keeps_paraphrases_apart(tmp_path: Path) -> None:
    """With a least distance, of two ways to ask the same only the better scored is selected."""
    source, out = write_dataset(tmp_path / "data.jsonl"), tmp_path / "out"
    settings = {"select": {"method": "top_k", "score": "output_words", "min_distance": 0.45}}
    summary = selfinstruct.select_dataset(source, out, settings)
    assert summary.left == {"too_near": 1}
    assert [row["mine"] for row in rows_of(out)] == [1, 2, 3, 4, 5]


def test_another_selection_embeds_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger keeps the vectors: other settings, or new rows, need those of new texts alone."""
    source, out = write_dataset(tmp_path / "data.jsonl"), tmp_path / "out"
    settings = {"select": {"method": "k_center", "count": 3}}
    selfinstruct.select_dataset(source, out, settings)
    asked: list[str] = []
    embed = MiniLM.embed

    def noting(self: MiniLM, texts: Any) -> Any:
        asked.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(MiniLM, "embed", noting)
    again = selfinstruct.select_dataset(source, out, settings, overrides=["select.count=4"])
    assert (again.selected, asked) == (4, [])
    with source.open("a") as file:
        file.write('{"instruction": "Name a tree", "output": "Oak"}\n')
    selfinstruct.select_dataset(source, out, settings)
    assert asked == ["Name a tree"]
    fresh = selfinstruct.select_dataset(source, tmp_path / "fresh", settings)
    assert rows_of(out) == rows_of(tmp_path / "fresh")
    assert fresh.left == {"not_needed": 4}


@pytest.mark.parametrize("method", ["random", "k_center", "facility_location"])
def test_quotas_hold_for_every_method(tmp_path: Path, method: str) -> None:
    """At most one record of each root verb."""
    source, out = write_dataset(tmp_path / "data.jsonl"), tmp_path / "out"
    settings = {"select": {"method": method, "count": 6, "quota": 1, "quota_by": "verb"}}
    summary = selfinstruct.select_dataset(source, out, settings)
    assert summary.left == {"over_quota": 1}
    assert max(summary.groups.values()) == 1
    assert len(rows_of(out)) == 5


def test_quotas_by_topic(tmp_path: Path) -> None:
    """At most so many of a topic; groups are called by the topics' names."""
    subjects = {"sea": ["ship", "harbour", "sail"], "bread": ["oven", "flour", "dough"]}
    path = tmp_path / "data.jsonl"
    path.write_text(
        "".join(
            json.dumps({"instruction": f"Describe the {a} and the {b}", "output": f"{n}"}) + "\n"
            for words in subjects.values()
            for n, (a, b) in enumerate([(x, y) for x in words for y in words] * 3)
        )
    )
    select = {"method": "random", "quota": 4, "quota_by": "topic", "topics": 2}
    summary = selfinstruct.select_dataset(path, tmp_path / "out", {"select": select})
    assert list(summary.groups.values()) == [4, 4]
    for name, words in zip(sorted(summary.groups), ("dough", "harbour"), strict=True):
        assert words in name
    assert summary.left == {"over_quota": 46}
    again = selfinstruct.select_dataset(path, tmp_path / "again", {"select": select})
    assert (rows_of(tmp_path / "again"), again.groups) == (
        rows_of(tmp_path / "out"),
        summary.groups,
    )


def test_too_few_records_have_no_topics(tmp_path: Path) -> None:
    """The error says how many there are, how many are needed and what else there is."""
    source = write_dataset(tmp_path / "data.jsonl")
    settings = {"select": {"method": "random", "quota": 1, "quota_by": "topic"}}
    with pytest.raises(UserError, match=r"6 records show no topics .*use verb"):
        selfinstruct.select_dataset(source, tmp_path / "out", settings)


def test_faulty_rows_are_counted_and_named(tmp_path: Path) -> None:
    """A row without an output is left out, and the summary says where it is."""
    source = write_dataset(tmp_path / "data.jsonl")
    with source.open("a") as file:
        file.write('{"instruction": "No answer here", "output": ""}\n')
    summary = selfinstruct.select_dataset(
        source, tmp_path / "out", {"select": {"method": "random", "count": 2}}
    )
    assert summary.candidates == 6
    assert summary.faulty == 1
    assert "data.jsonl:7" in summary.faults[0]


def test_parquet_keeps_its_own_columns(tmp_path: Path) -> None:
    """Columns that the reader of examples does not know come out too."""
    path = tmp_path / "data.parquet"
    rows = [{"instruction": a, "output": b, "mine": n} for n, (a, b) in enumerate(TEXTS)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    selfinstruct.select_dataset(
        path, tmp_path / "out", {"select": {"method": "random", "count": 2}}
    )
    assert all("mine" in row for row in rows_of(tmp_path / "out"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SeedError, match="no whole Parquet file"):
        selfinstruct.select_dataset(
            path, tmp_path / "other", {"select": {"method": "random", "count": 2}}
        )


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Nothing is written into a folder with other files, nor into a run."""
    source, out = write_dataset(tmp_path / "data.jsonl"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("dear to me")
    with pytest.raises(FolderError, match="holds other files"):
        selfinstruct.select_dataset(source, out, {"select": {"method": "random"}})
    with pytest.raises(RecipeError, match="nothing says what to select"):
        selfinstruct.select_dataset(source, tmp_path / "new")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "top_k"}, "top_k needs a score"),
        ({"method": "k_center"}, "needs a count"),
        ({"method": "k_center", "count": 3, "min_distance": 0.1}, "takes no min_distance"),
        ({"method": "random", "quota": 3, "topics": 5}, "topics needs a quota, and quota_by"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    """The error names the method and what it needs."""
    source = write_dataset(tmp_path / "data.jsonl")
    with pytest.raises(UserError, match=said):
        selfinstruct.select_dataset(source, tmp_path / "out", {"select": settings})


# -- the embedder ---------------------------------------------------------------------------------


def test_a_vector_does_not_depend_on_its_batch() -> None:
    """Alone, among others, in another order: the same bytes."""
    texts = [asked for asked, _ in TEXTS] + ["\ud800 and \x00", "", "word " * 3000, "東京"]
    embedder = MiniLM()
    together = embedder.embed(texts)
    assert (embedder.embed(texts[::-1]) == together[::-1]).all()
    for at, text in enumerate(texts):
        assert (embedder.embed([text])[0] == together[at]).all()


def test_meaning_counts_more_than_words() -> None:
    """A paraphrase is nearer than a sentence that shares its words."""
    found = Vectors(
        MiniLM().embed(
            [
                "How can I save money on groceries?",
                "What are some ways to spend less at the supermarket?",
                "How can I save a file on my computer?",
            ]
        )
    )
    similar = found.similarities(0)
    assert similar[1] > similar[2]
