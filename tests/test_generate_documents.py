"""A shelf of documents becomes a dataset: the same at any speed, on record, and kept private."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import selfinstruct
from selfinstruct.core.errors import DocumentError, PrivacyError, RecipeError
from selfinstruct.core.recipe import TWO_STEP, Recipe
from selfinstruct.core.recipe_file import data_recipe, given_recipe
from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.types import Sampling
from selfinstruct.engine.ledger import Ledger
from selfinstruct.stages.estimate import estimate_from_seeds
from selfinstruct.stages.generate import gather_documents, gather_seeds
from selfinstruct.steps.strategies.build import STRATEGIES, make_strategy
from selfinstruct.testing.fake_server import Running
from selfinstruct.testing.forms import Share
from tests.runs import WORDS, adds_up, digest, recipe

Start = Callable[..., Running]


def write_shelf(folder: Path, documents: int = 4) -> Path:
    """Documents of three sections each, every sentence of its own words."""
    shelf = folder / "shelf"
    shelf.mkdir(exist_ok=True)
    for n in range(documents):
        sections = []
        for m in range(3):
            first, second = WORDS[(3 * n + m) % 20], WORDS[(7 * n + 5 * m + 4) % 20]
            sections.append(
                f"## {first.title()} {n}\n\n"
                f"Every {first} of group {n} is checked after {10 * n + m + 3} days by the owner "
                f"of the {second}. A {second} that fails is returned to the {first} office. "
                f"Costs above {100 * (n + 2) + m} euros need a letter about {first} and {second}."
            )
        (shelf / f"{n}.md").write_text(f"# Rules {n}\n\n" + "\n\n".join(sections))
    return shelf


def documents_recipe(folder: Path, url: str, **top: Any) -> dict[str, Any]:
    """A recipe that asks about that shelf, with the seeds of other tests as examples."""
    generate = top.pop("generate", {})
    made = recipe(folder, url, **generate)
    made["generate"].pop("strategies")
    if "strategies" in generate:
        made["generate"]["strategies"] = generate["strategies"]
    made["generate"]["target"] = generate.get("target", 24)
    made["documents"] = {"path": str(write_shelf(folder)), "words": 40}
    made["filters"] = {"rouge": {"threshold": 0.95}, "minhash": {"enabled": False}}
    return made | top


def make(folder: Path, url: str, output: str = "run", **top: Any) -> selfinstruct.Run:
    return selfinstruct.Run.from_recipe(
        documents_recipe(folder, url, **top), output=folder / output
    )


def test_documents_become_records(tmp_path: Path, fake_server: Running) -> None:
    """Each names its passage; all passages are asked about evenly; what came in adds up."""
    run = make(tmp_path, fake_server.url)
    assert run.generate().kept == 24
    assert adds_up(run.funnel())
    passages = {passage.id: passage for passage in run.passages()}
    assert len(passages) == 12
    assert run.documents() == "12 passages of 4 documents"
    seeds = {seed.id for seed in run.seeds()}
    for record in run.records(kept=None):
        first, *examples = record.candidate.parents
        assert first in passages
        assert len(examples) == 2
        assert set(examples) <= seeds
        if record.verdict.kept:
            assert record.candidate.output.split(".")[0] in passages[first].text
    # By slot, since a slot that kept nothing has its turn too.
    slots = {r.candidate.slot: r.candidate.parents[0] for r in run.records(kept=None)}
    turns = Counter(slots[slot] for slot in sorted(slots)[:12])
    assert max(turns.values()) == 1
    assert run.funnel().rejected.keys() & {"names_passage", "foreign_figure"}


def test_speed_and_stops_do_not_change_the_dataset(
    tmp_path: Path, start_fake_server: Start
) -> None:
    """Byte for byte, whatever the concurrency, and after a smaller target."""
    slow = start_fake_server(latency_ms=20, sigma=0.7)
    one = make(tmp_path, slow.url, "one", generate={"concurrency": 1})
    one.generate()
    many = make(tmp_path, slow.url, "many", generate={"concurrency": 16})
    many.generate()
    parts = make(tmp_path, slow.url, "parts", generate={"target": 5, "concurrency": 16})
    parts.generate()
    parts.configure("generate.target=24")
    parts.generate()
    assert digest(one) == digest(many) == digest(parts)


def test_without_seeds_documents_are_enough(tmp_path: Path, fake_server: Running) -> None:
    """The passage is then the only thing shown, and dataset, card and report are written."""
    made = documents_recipe(tmp_path, fake_server.url)
    del made["seeds"]
    run = selfinstruct.Run.from_recipe(made, output=tmp_path / "run")
    assert run.generate().kept == 24
    run.write_dataset()
    asked = Counter(record.candidate.parents[0] for record in run.records())
    card = (run.folder.dataset / "README.md").read_text("utf-8")
    assert f"that was shown {len(asked)} passages of documents, and kept" in card
    assert "The human examples" not in card
    first = sum(one.startswith("0.md#") for one in asked)
    assert f"| `0.md` | {first} | open |" in card
    assert "borne out by the passage it was written from" in card
    page = run.report().read_text("utf-8")
    assert f"{len(asked)} of 12 passages have kept records" in page
    assert "passage</span>" in page


def test_a_share_of_the_records_may_have_their_passage(
    tmp_path: Path, fake_server: Running
) -> None:
    """As input, in every format; which ones follows from their ids, so more of them keep those."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    texts = {passage.id: passage.text for passage in run.passages()}

    def opened(share: float) -> set[str]:
        run.configure(f"dataset.open_book={share}")
        run.write_dataset()
        rows = [
            row
            for name in ("train", "test")
            for row in pq.read_table(next(run.folder.dataset.glob(f"data/{name}-*"))).to_pylist()
        ]
        assert len(rows) == 24
        assert all(row["input"] in ("", texts[row["parents"][0]]) for row in rows)
        (talk, *_) = pq.read_table(next(run.folder.dataset.glob("messages/train-*"))).to_pylist()
        asked = {row["id"]: f"{row['instruction']}\n\n{row['input']}".strip() for row in rows}
        assert talk["messages"][0]["content"] == asked[talk["id"]]
        return {row["id"] for row in rows if row["input"]}

    none, some, every = opened(0.0), opened(0.5), opened(1.0)
    assert none < some < every
    assert len(every) == 24


def test_an_added_document_pays_nothing_twice(tmp_path: Path, fake_server: Running) -> None:
    """Nor does a changed one: records go on naming the passage they were written from."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    calls = fake_server.server.stats.calls
    before = {record.candidate.id for record in run.records()}
    changed = tmp_path / "shelf" / "0.md"
    changed.write_text(changed.read_text().replace("days", "weeks"))
    (tmp_path / "shelf" / "new.md").write_text("A new rule: every rule is read aloud on Mondays.")
    run.generate()
    assert fake_server.server.stats.calls == calls
    assert {record.candidate.id for record in run.records()} == before
    known = {passage.id for passage in run.passages()}
    assert len(known) == 12 + 3 + 1
    assert {record.candidate.parents[0] for record in run.records()} <= known


def test_what_was_asked_is_shown_again(tmp_path: Path, fake_server: Running) -> None:
    """From a passage's second turn on, as far as the window lets a slot see."""
    run = make(tmp_path, fake_server.url, generate={"window": 4, "target": 45})
    run.generate()
    with Ledger.read(run.folder.db_path) as ledger:
        prompts = [
            request.messages[-1].content
            for slot in range(ledger.last_slot() + 1)
            if (found := ledger.finished(slot, 0, 0)) and (request := found[0])
        ]
    assert all("Asked already:\n(none)" in prompt for prompt in prompts[:12])
    assert any("Asked already:\n- " in prompt for prompt in prompts[12:])


def test_other_filters_judge_again_for_nothing(tmp_path: Path, start_fake_server: Start) -> None:
    """Grounding too, from the passages that the ledger holds: the documents may be gone."""
    server = start_fake_server(share=Share(bad=0.5, cut=0.0, refusals=0.0))
    run = make(tmp_path, server.url)
    run.generate()
    assert run.funnel().rejected["foreign_figure"]
    for path in (tmp_path / "shelf").iterdir():
        path.unlink()
    calls = server.server.stats.calls
    done = run.refilter("filters.grounded.figures=false")
    assert done.newly_kept["foreign_figure"] > 0
    assert server.server.stats.calls == calls


def test_strategies_may_be_mixed(tmp_path: Path, fake_server: Running) -> None:
    """Grounding looks at the records from passages alone."""
    strategies = [{"kind": "documents"}, {"kind": "alpaca", "tasks_per_request": 6}]
    run = make(tmp_path, fake_server.url, generate={"strategies": strategies, "target": 40})
    run.generate()
    kinds = Counter(record.candidate.strategy for record in run.records())
    assert kinds.keys() == {"documents", "alpaca"}


def test_a_ledger_from_before_documents_is_read(tmp_path: Path, fake_server: Running) -> None:
    """It has no table of passages."""
    run = make(tmp_path, fake_server.url)
    run.generate()
    with sqlite3.connect(run.folder.db_path) as database:
        database.execute("DROP TABLE passages")
    assert run.passages() == []


# -- private documents ---------------------------------------------------------------------------


def test_private_documents_go_to_no_remote_teacher(tmp_path: Path) -> None:
    """Without leave, before anything is made."""
    made = documents_recipe(tmp_path, "https://teacher.example")
    made["documents"]["private"] = True
    run = selfinstruct.Run.from_recipe(made, output=tmp_path / "run")
    with pytest.raises(PrivacyError, match="shelf: a private source, and teacher compatible"):
        run.generate()
    made["documents"]["allow_remote"] = True
    assert Recipe.model_validate(made).sealed_sources == []


def test_records_from_private_documents_are_found_before_publishing(
    tmp_path: Path, fake_server: Running
) -> None:
    """Those that quote them too; no name of a private document leaves with the dataset."""
    made = documents_recipe(tmp_path, fake_server.url)
    made["documents"]["private"] = True
    made["publish"] = {"dataset_repo": "owner/rules"}
    run = selfinstruct.Run.from_recipe(made, output=tmp_path / "run")
    run.generate()
    run.write_dataset()
    findings = run.plan_publish(what=["dataset"]).repos[0].findings
    kinds = Counter(finding.kind for finding in findings)
    assert kinds["written from a private document"] == 2  # both splits
    assert kinds["text of private document"] > 0
    card = (run.folder.dataset / "README.md").read_text("utf-8")
    asked = {record.candidate.parents[0] for record in run.records()}
    assert f"| a private source | {len(asked)} | private |" in card
    assert "Some of the documents are private" in card
    files = run.folder.dataset.rglob("*.parquet")
    parents = [
        p
        for path in files
        for row in pq.read_table(path).to_pylist()
        for p in row.get("parents", [])
    ]
    assert not any(".md" in parent for parent in parents)
    assert "sources marked as private" in run.report().read_text("utf-8")


def test_a_document_may_become_private_later(tmp_path: Path, fake_server: Running) -> None:
    """Records from before, of an earlier text of it too, are then from a private document."""
    made = documents_recipe(tmp_path, fake_server.url)
    run = selfinstruct.Run.from_recipe(made, output=tmp_path / "run")
    run.generate()
    changed = tmp_path / "shelf" / "0.md"
    changed.write_text(changed.read_text().replace("days", "weeks"))
    made["documents"]["private"] = True
    made["generate"]["target"] = 26
    made["publish"] = {"dataset_repo": "owner/rules"}
    run = selfinstruct.Run.from_recipe(made, output=tmp_path / "run")
    run.generate()
    run.write_dataset()
    assert all(passage.private for passage in run.passages())
    assert ".md" not in (run.folder.dataset / "README.md").read_text("utf-8").split("documents:")[1]
    kinds = {f.kind for f in run.plan_publish(what=["dataset"]).repos[0].findings}
    assert "written from a private document" in kinds


def test_a_run_within_its_shelf_does_not_read_itself(tmp_path: Path, fake_server: Running) -> None:
    """Neither in its first session, nor once it has a report and a card."""
    made = documents_recipe(tmp_path, fake_server.url)
    run = selfinstruct.Run.from_recipe(made, output=tmp_path / "shelf" / "run")
    run.generate()
    said = "12 passages of 4 documents; left out 1 file of other kinds (run)"
    assert run.documents() == said
    run.report()
    run.configure("generate.target=26")
    run.generate()
    assert run.documents() == said


# -- before the run ------------------------------------------------------------------------------


def test_an_estimate_counts_real_requests(tmp_path: Path) -> None:
    """By the passages and, without seeds, by what is assumed of a question's length."""
    loaded = given_recipe(documents_recipe(tmp_path, "http://127.0.0.1:1"))
    shelf = gather_documents(loaded)
    found = estimate_from_seeds(loaded, gather_seeds(loaded), date(2026, 11, 26), shelf)
    assert found.basis == "the seeds and the documents"
    assert "12 passages of 4 documents" in found.notes
    (line,) = found.strategies
    assert line.name == "documents"
    alone = loaded.model_copy(update={"seeds": []})
    bare = estimate_from_seeds(alone, [], date(2026, 11, 26), shelf)
    assert bare.basis == "the documents"
    assert 0 < bare.expected.tokens_in < found.expected.tokens_in


TEACHER = {"kind": "scripted", "model": "m"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"teacher": TEACHER}, "it names neither seeds nor documents"),
        ({"documents": "d"}, "documents need a teacher, which writes the questions"),
        (
            {"documents": "d", "seeds": "s", "teacher": TEACHER,
             "generate": {"strategies": [{"kind": "json"}]}},
            "documents are given, and no strategy asks about them",
        ),
        (
            {"seeds": "s", "teacher": TEACHER, "generate": {"strategies": [{"kind": "documents"}]}},
            "the strategy documents needs the key documents",
        ),
        (
            {"documents": "d", "teacher": TEACHER,
             "generate": {"strategies": [{"kind": "documents"}, {"kind": "magpie"}]}},
            "the strategy magpie needs seeds",
        ),
        (
            {"documents": "d", "teacher": TEACHER, "answer_teacher": TEACHER},
            "answer_teacher is set, and no strategy answers in a second call; leave it out, or add",
        ),
        (
            {"seeds": "s", "teacher": TEACHER, "generate": {"batch_answers": True}},
            "generate.batch_answers is set, and no strategy answers in a second call",
        ),
        ({"documents": {"path": ""}, "teacher": TEACHER}, "documents.0.path: "),
        ({"documents": {"path": "d", "word": 3}, "teacher": TEACHER}, "did you mean 'words'"),
    ],
)  # fmt: skip
def test_a_recipe_says_what_it_starts_from(given: dict[str, Any], said: str) -> None:
    """Each source has a use, and each strategy its source."""
    with pytest.raises(RecipeError, match=said):
        given_recipe({"name": "x"} | given)


def test_strategies_that_answer_in_a_second_call_are_known() -> None:
    """A recipe that sets what only those use is told so before they are made."""
    made = {
        kind: make_strategy(StrategyConfig(kind=kind), Sampling(max_tokens=9), header="<|user|>")
        for kind in STRATEGIES
    }
    assert {kind for kind, strategy in made.items() if strategy.two_step} == TWO_STEP


def test_a_recipe_of_documents_serves_given_data(tmp_path: Path) -> None:
    """As `train-student --data --recipe` takes it: without documents, and private as they were."""
    made = documents_recipe(tmp_path, "http://127.0.0.1:1")
    made["documents"]["private"] = True
    made["seeds"] = made["seeds"][0]
    found = data_recipe("data.jsonl", tmp_path / "run", made, [])
    assert (found.documents, found.seeds[0].private) == ([], True)


def test_documents_that_cannot_be_read_stop_the_run(tmp_path: Path, fake_server: Running) -> None:
    """Before anything is asked."""
    run = make(tmp_path, fake_server.url)
    (tmp_path / "shelf" / "x.pdf").write_bytes(b"no")
    with pytest.raises(DocumentError, match=r"x\.pdf: not a PDF"):
        run.generate()
    assert fake_server.server.stats.calls == 0
