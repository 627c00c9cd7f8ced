"""The dataset folder: loads offline, has the same bytes each time, and is never half written."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfinstruct.core.errors import FolderError, UserError
from selfinstruct.core.ids import make_request
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import (
    Candidate,
    Completion,
    Message,
    Record,
    Sampling,
    SeedTask,
    Usage,
    Verdict,
)
from selfinstruct.engine.dataset_folder import read_summary
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.stages.dataset import export, write_dataset
from selfinstruct.steps import swap
from selfinstruct.steps.publishing.hub_card import size_category
from selfinstruct.steps.seeds.reader import read_seeds
from selfinstruct.steps.tables import read_parquet

SEEDS = [
    SeedTask(id="s1", instruction="Name a fruit.", output="Plum.", source="seeds/open.jsonl:1"),
    SeedTask(
        id="s2",
        instruction="Sum up the note.",
        input="Ask Bob.",
        output="Bob knows.",
        source="seeds/secret.jsonl:1",
        private=True,
    ),
]
KEPT = 40
COLUMNS = [
    "id", "instruction", "input", "output", "category", "strategy", "teacher", "model", "parents",
    "prompt_version", "requests", "cost_usd", "source", "flags",
]  # fmt: skip


def candidate(n: int) -> Candidate:
    return Candidate(
        id=f"req{n}-0",
        slot=n,
        index=0,
        strategy="alpaca",
        instruction=f"Explain topic{n} to reader{n} in words{n}.",
        input=f"note{n}" if n % 2 else "",
        output=f"It is ```this{n}``` | and ünï {n}.",
        category="qa",
        parents=("s1", "s2"),
        requests=(f"req{n}",),
        prompt_version="alpaca@1-abc",
        teacher="compatible",
        model="tiny|model",
        cost=1_500_000,
    )


def verdict(n: int) -> Verdict:
    """40 kept, then two reasons to reject, then two over the target."""
    reasons = [""] * KEPT + ["not_novel"] * 3 + ["too_short"] * 2 + ["beyond_target"] * 2
    if reasons[n] == "not_novel":
        return Verdict(
            candidate_id=f"req{n}-0",
            reason="not_novel",
            detail="ROUGE-L 0.9",
            neighbour="s1",
            score=0.9,
        )
    return Verdict(candidate_id=f"req{n}-0", reason=reasons[n])


async def call(ledger: Ledger, n: int) -> None:
    request = make_request(
        teacher="compatible",
        model="tiny|model",
        sampling=Sampling(max_tokens=9),
        messages=(Message("user", str(n)),),
        sample=n,
        slot=n,
    )
    number = await ledger.sent(request, "generate", 2_000_000)
    usage = Usage(input=100, output=10)
    done = Completion(request_id=request.id, text="x", finish="stop", usage=usage, cost=1_500_000)
    await ledger.done(number, done)


def fill(folder: RunFolder, records: list[Record]) -> None:
    async def calls(ledger: Ledger) -> None:
        for record in records:
            await call(ledger, record.candidate.slot)

    with Ledger(folder.db_path) as ledger:
        ledger.set_seeds(SEEDS)
        asyncio.run(calls(ledger))
        for record in records:
            ledger.post_verdicts(record.candidate.slot, [record])


MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str = "run", count: int = KEPT + 7, **settings: Any) -> RunFolder:
        recipe = Recipe.model_validate(
            {
                "name": name,
                "seeds": ["seeds/open.jsonl"],
                "teacher": {"kind": "scripted", "model": "replies.jsonl"},
                "dataset": settings,
            }
        )
        folder = RunFolder.create(tmp_path / name, recipe)
        fill(folder, [Record(candidate=candidate(n), verdict=verdict(n)) for n in range(count)])
        return folder

    return make


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`datasets.load_dataset` with a cache of its own and the Hub switched off."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")

    def load_dataset(folder: Path, *config: str) -> Any:
        return datasets.load_dataset(str(folder), *config, cache_dir=str(tmp_path / "cache"))

    return load_dataset


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def front_matter(folder: RunFolder) -> dict[str, Any]:
    text = (folder.dataset / "README.md").read_text("utf-8")
    loaded = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


# -- loading -------------------------------------------------------------------------------------


def test_datasets_loads_every_config(make_run: MakeRun, load: Callable[..., Any]) -> None:
    """The default config, messages and rejected load offline, with their columns and types."""
    folder = make_run(system_prompt="Be brief.")
    summary = write_dataset(folder)
    data = load(folder.dataset)
    assert {name: data[name].num_rows for name in data} == {
        "train": summary.train,
        "test": summary.held_out,
    }
    assert summary.train + summary.held_out == KEPT
    assert data["train"].column_names == COLUMNS
    row = data["train"][0]
    want = candidate(int(row["id"][3:-2]))
    assert (row["instruction"], row["output"]) == (want.instruction, want.output)
    assert (row["parents"], row["requests"]) == (list(want.parents), list(want.requests))
    assert (row["cost_usd"], row["source"]) == (1.5e-6, "machine")

    talks = load(folder.dataset, "messages")
    assert {name: talks[name]["id"][:] for name in talks} == {
        name: data[name]["id"][:] for name in data
    }
    talk = next(row for row in talks["train"] if int(row["id"][3:-2]) % 2)
    want = candidate(int(talk["id"][3:-2]))
    assert talk["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"{want.instruction}\n\n{want.input}"},
        {"role": "assistant", "content": want.output},
    ]

    rejected = load(folder.dataset, "rejected")["train"]
    assert rejected.column_names == [*COLUMNS, "reason", "detail", "neighbour", "score"]
    assert rejected["reason"][:] == ["not_novel"] * 3 + ["too_short"] * 2
    assert rejected[0]["neighbour"] == "s1"
    assert (rejected[0]["score"], rejected[4]["score"]) == (0.9, None)


def test_nothing_held_out_and_nothing_rejected_load_too(
    make_run: MakeRun, load: Callable[..., Any]
) -> None:
    """Without a test split, or without rejects, what there is loads and the card names no more.

    `datasets` cannot load a split of no rows, so an empty one must not be written.
    """
    folder = make_run(count=8, held_out=0)
    assert write_dataset(folder).held_out == 0
    assert list(load(folder.dataset)) == ["train"]
    assert list(load(folder.dataset, "messages")) == ["train"]
    assert [config["config_name"] for config in front_matter(folder)["configs"]] == [
        "default",
        "messages",
    ]
    assert set(hashes(folder.dataset)) == {
        "README.md",
        "alpaca.json",
        "data/train-00000-of-00001.parquet",
        "dataset.json",
        "messages/train-00000-of-00001.parquet",
        "train.jsonl",
    }
    assert "Nothing was rejected." in (folder.dataset / "README.md").read_text("utf-8")


def test_human_seeds_are_in_train_only_when_asked(make_run: MakeRun) -> None:
    """include_seeds puts the human examples first in train, marked, and never in test."""
    folder = make_run(include_seeds=True)
    summary = write_dataset(folder)
    assert (summary.human, summary.seeds, summary.private_seeds) == (2, 2, 1)
    assert summary.train + summary.held_out == KEPT + 2
    rows = list(read_parquet(folder.dataset / "data/train-00000-of-00001.parquet"))
    assert [row["source"] for row in rows[:3]] == ["human", "human", "machine"]
    assert (rows[1]["id"], rows[1]["input"], rows[1]["requests"]) == ("s2", "Ask Bob.", [])
    test = read_parquet(folder.dataset / "data/test-00000-of-00001.parquet")
    assert {row["source"] for row in test} == {"machine"}


# -- the same bytes ------------------------------------------------------------------------------


def test_bytes_follow_from_the_records_alone(make_run: MakeRun) -> None:
    """Written twice, and from another run with the same records, every byte is the same."""
    folder = make_run()
    first = write_dataset(folder)
    before = hashes(folder.dataset)
    assert write_dataset(folder, force=True) == first
    assert hashes(folder.dataset) == before
    elsewhere = folder.path.with_name("elsewhere")
    shutil.copytree(folder.path, elsewhere, ignore=shutil.ignore_patterns("dataset"))
    write_dataset(RunFolder.open(elsewhere))
    assert hashes(elsewhere / "dataset") == before


def test_bytes_do_not_depend_on_hash_seed(make_run: MakeRun) -> None:
    """Another process with another hash seed writes the same bytes."""
    folder = make_run()
    write_dataset(folder)
    before = hashes(folder.dataset)
    code = (
        "import sys; from selfinstruct.engine.folder import RunFolder; "
        "from selfinstruct.stages.dataset import write_dataset; "
        "write_dataset(RunFolder.open(sys.argv[1]), force=True)"
    )
    env = os.environ | {"PYTHONHASHSEED": "123"}
    subprocess.run([sys.executable, "-c", code, str(folder.path)], check=True, env=env)
    assert hashes(folder.dataset) == before


def test_summary_tells_each_files_checksum(make_run: MakeRun) -> None:
    """dataset.json lists every other file with its SHA-256, and is what read_summary gives."""
    folder = make_run()
    summary = write_dataset(folder)
    found = hashes(folder.dataset)
    assert summary.files == {name: found[name] for name in found if name != "dataset.json"}
    assert read_summary(folder) == summary
    stored = json.loads((folder.dataset / "dataset.json").read_bytes())
    assert (stored["rejected"], stored["beyond_target"], stored["license"]) == (5, 2, "other")


# -- when it is written --------------------------------------------------------------------------


def test_written_again_only_when_something_changed(make_run: MakeRun) -> None:
    """An up-to-date folder is left alone; `force`, a lost file or a new record rewrite it."""
    folder = make_run(count=KEPT - 1)
    first = write_dataset(folder)
    mark = folder.dataset / "mark"
    mark.touch()
    assert write_dataset(folder) == first
    assert mark.exists()
    write_dataset(folder, force=True)
    assert not mark.exists()
    (folder.dataset / "alpaca.json").unlink()
    assert read_summary(folder) is None
    write_dataset(folder)
    assert (folder.dataset / "alpaca.json").exists()
    fill(folder, [Record(candidate=candidate(KEPT - 1), verdict=verdict(KEPT - 1))])
    second = write_dataset(folder)
    assert second.train + second.held_out == KEPT
    assert second.fingerprint != first.fingerprint


def test_a_new_expense_of_generating_changes_the_card_alone(make_run: MakeRun) -> None:
    """What the card tells may change while the data's fingerprint, and its bytes, stay."""
    folder = make_run()
    first = write_dataset(folder)
    with Ledger(folder.db_path) as ledger:
        ledger.expense("train", "gpu", 1.0, "hours", 10**12)
    assert write_dataset(folder) == first
    with Ledger(folder.db_path) as ledger:
        ledger.expense("generate", "electricity", 2.0, "kWh", 10**12)
    second = write_dataset(folder)
    assert second.fingerprint == first.fingerprint
    assert {name for name in first.files if first.files[name] != second.files[name]} == {
        "README.md"
    }
    assert "electricity" in (folder.dataset / "README.md").read_text("utf-8")


def test_nothing_kept_is_an_error(make_run: MakeRun) -> None:
    """A run that kept nothing has no dataset to write."""
    with pytest.raises(FolderError, match="no record was kept yet"):
        write_dataset(make_run(count=0))


def test_a_folder_that_cannot_be_written_is_a_users_error(make_run: MakeRun) -> None:
    """Something in the way is told in one line, and the earlier dataset stays."""
    folder = make_run()
    write_dataset(folder)
    before = hashes(folder.dataset)
    (folder.path / ".dataset.writing").write_text("in the way")
    with pytest.raises(FolderError, match="cannot be written"):
        write_dataset(folder, force=True)
    assert hashes(folder.dataset) == before


KILLED = """
import os, sys
from pathlib import Path
from selfinstruct.steps import swap
step, folder = int(sys.argv[1]), Path(sys.argv[2])
calls = 0
def dies_at(name):
    real = getattr(Path, name)
    def call(self, *args, **kwargs):
        global calls
        calls += 1
        if calls == step:
            os._exit(9)
        return real(self, *args, **kwargs)
    setattr(Path, name, call)
for name in ("rename", "mkdir"):
    dies_at(name)
def rmtree(path, real=swap.shutil.rmtree, **kwargs):
    global calls
    calls += 1
    if calls == step:
        for half in list(Path(path).glob("*.txt"))[:1]:
            half.unlink()
        os._exit(9)
    real(path, **kwargs)
swap.shutil.rmtree = rmtree
with swap.replacing(folder) as new:
    (new / "a.txt").write_text("new")
    (new / "b.txt").write_text("new")
"""


@pytest.mark.parametrize("step", range(1, 8))
def test_killed_at_any_step_leaves_a_whole_folder(tmp_path: Path, step: int) -> None:
    """Killed before any rename or within a removal: after the next start it is old or new."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(step), str(folder)])
    assert done.returncode in (0, 9)
    assert step > 4 or done.returncode == 9
    if folder.exists():
        assert {path.read_text() for path in folder.iterdir()} in ({"old"}, {"new"})
    with swap.replacing(folder):
        pass
    found = [path.read_text() for path in folder.iterdir()]
    assert found in (["old"] * 2, ["new"] * 2)
    assert list(tmp_path.iterdir()) == [folder]


def test_an_error_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    """What raises in the block changes nothing and leaves nothing behind."""
    folder = tmp_path / "dataset"
    with swap.replacing(folder) as new:
        (new / "a.txt").write_text("old")

    def fails() -> None:
        with swap.replacing(folder) as new:
            (new / "a.txt").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (folder / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


# -- the card ------------------------------------------------------------------------------------


def test_front_matter_is_the_hubs(make_run: MakeRun) -> None:
    """Every key is one the Hub knows, and the files it names are there."""
    hub = pytest.importorskip("huggingface_hub")
    folder = make_run(license="cc-by-4.0", language=["en", "de"])
    write_dataset(folder)
    front = front_matter(folder)
    card = hub.DatasetCard.load(folder.dataset / "README.md")
    known = set(vars(hub.DatasetCardData())) | {"configs", "tags"}
    assert set(front) <= known
    assert card.data.license == "cc-by-4.0"
    assert card.data.language == ["en", "de"]
    assert card.data.size_categories == ["n<1K"]
    paths = [file["path"] for config in front["configs"] for file in config["data_files"]]
    assert len(paths) == 5
    assert all((folder.dataset / path).is_file() for path in paths)


def test_card_tells_funnel_reasons_and_price(make_run: MakeRun) -> None:
    """The card's figures are the ledger's."""
    folder = make_run()
    write_dataset(folder)
    card = (folder.dataset / "README.md").read_text("utf-8")
    for line in (
        "| `compatible` | `tiny/model` | `alpaca` | `alpaca@1-abc` | 40 |",
        "| candidates in them | 47 |",
        "| over the target, not looked at | 2 |",
        "| kept | 40 |",
        "| `not_novel` | 3 | 60.0% |",
        "| `too_short` | 2 | 40.0% |",
        "| `compatible` | 47 | requests | $7.05e-05 |  |",
    ):
        assert line in card.splitlines()
    assert "$1.76e-06 for each kept record" in card


def test_card_keeps_private_names_private(make_run: MakeRun) -> None:
    """A private source is counted as such; neither its name nor its texts are on the card."""
    folder = make_run(include_seeds=True)
    write_dataset(folder)
    card = (folder.dataset / "README.md").read_text("utf-8")
    assert "| `open.jsonl` | 1 | open |" in card
    assert "| a private source | 1 | private |" in card
    assert "secret" not in card
    assert "Bob" not in card
    assert "Some of the human examples are private." in card


def test_samples_cannot_break_the_card(make_run: MakeRun) -> None:
    """A sample that holds a code fence stays within its own, and parses as JSON."""
    folder = make_run()
    write_dataset(folder)
    card = (folder.dataset / "README.md").read_text("utf-8")
    blocks = card.split("````json\n")[1:]
    assert len(blocks) == 3
    assert "```this" in json.loads(blocks[0].split("\n````")[0])["output"]


@pytest.mark.parametrize(
    ("records", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (52_000, "10K<n<100K")]
)
def test_size_category(records: int, name: str) -> None:
    """Sizes have the Hub's names."""
    assert size_category(records) == name


# -- exports -------------------------------------------------------------------------------------


def test_exports_hold_the_training_split(make_run: MakeRun, tmp_path: Path) -> None:
    """Every export format has every training record, in its own shape."""
    folder = make_run(system_prompt="Be brief.")
    count = write_dataset(folder).train
    rows = list(read_parquet(folder.dataset / "data/train-00000-of-00001.parquet"))

    def text(fmt: str) -> str:
        assert export(folder, fmt, tmp_path / fmt) == count
        return (tmp_path / fmt).read_text("utf-8")

    assert json.loads(text("alpaca")) == [
        {name: row[name] for name in ("instruction", "input", "output")} for row in rows
    ]
    assert (tmp_path / "alpaca").read_bytes() == (folder.dataset / "alpaca.json").read_bytes()
    assert [json.loads(line) for line in text("jsonl").splitlines()] == rows
    shared = json.loads(text("sharegpt"))
    assert [talk["id"] for talk in shared] == [row["id"] for row in rows]
    assert [turn["from"] for turn in shared[0]["conversations"]] == ["system", "human", "gpt"]
    talks = [json.loads(line) for line in text("messages").splitlines()]
    assert [talk["messages"][-1]["content"] for talk in talks] == [row["output"] for row in rows]
    table = list(csv.DictReader(text("csv").splitlines()))
    assert [row["instruction"] for row in table] == [row["instruction"] for row in rows]
    assert table[0]["parents"] == "s1 s2"


@pytest.mark.parametrize("fmt", ["alpaca", "jsonl", "csv", "sharegpt", "messages"])
def test_exports_can_be_read_as_seeds(make_run: MakeRun, tmp_path: Path, fmt: str) -> None:
    """What is written can be read again, the dataset folder itself included."""
    folder = make_run()
    write_dataset(folder)
    count = export(folder, fmt, tmp_path / f"out.{fmt}", split="all")
    assert count == KEPT
    found = read_seeds(tmp_path / f"out.{fmt}")
    assert {task.output for task in found} == {candidate(n).output for n in range(KEPT)}
    held = {row["id"] for row in read_parquet(folder.dataset / "data/test-00000-of-00001.parquet")}
    again = read_seeds(folder.dataset)
    assert len(again) == KEPT - len(held)
    assert not held & {task.id for task in again}


def test_export_refuses_what_it_cannot_do(make_run: MakeRun, tmp_path: Path) -> None:
    """An unknown format, no dataset, no test split, a folder in the way: one line each."""
    folder = make_run(held_out=0)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="'xml' is no export format; known are alpaca, csv,"):
        export(folder, "xml", out)
    with pytest.raises(FolderError, match="no dataset here; run: selfinstruct export"):
        export(folder, "csv", out)
    write_dataset(folder)
    with pytest.raises(FolderError, match="nothing is held out"):
        export(folder, "csv", out, split="test")
    out.mkdir()
    with pytest.raises(FolderError, match="out: cannot be written"):
        export(folder, "csv", out)
