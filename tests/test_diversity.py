"""Measures of variety, topics, coverage of seeds, and two sets side by side."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.cli.main import cli
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.charts.diversity import diversity_section
from selfinstruct.steps.diversity.measures import (
    coverage,
    distinct,
    measure,
    nearest_others,
)
from selfinstruct.steps.diversity.overlap import overlap
from selfinstruct.steps.diversity.topics import topics_of
from selfinstruct.steps.filters.rouge import rouge_l
from selfinstruct.steps.words import unicode_words
from selfinstruct.testing.fake_server import Running
from tests import runs

SUBJECTS = {
    "cooking": ["soup", "oven", "flour", "dough", "pepper", "recipe"],
    "space": ["planet", "rocket", "orbit", "comet", "telescope", "moon"],
}


def task(instruction: str, name: str = "t", given: str = "", output: str = "x y z") -> SeedTask:
    """A record."""
    return SeedTask(id=name, instruction=instruction, input=given, output=output)


def child(instruction: str, *parents: str) -> Candidate:
    """A kept candidate that descends from `parents`."""
    return Candidate(
        id=instruction, slot=0, index=0, strategy="", instruction=instruction, parents=parents
    )


def instructions(count: int, subject: str) -> list[str]:
    """Instructions on one subject."""
    rng, words = random.Random(subject), SUBJECTS[subject]
    return [f"Describe the {' and the '.join(rng.sample(words, 2))}" for _ in range(count)]


def test_distinct_n_is_unique_over_all() -> None:
    """Counted by hand: 5 words of which 4 differ, 3 pairs of which 3 differ."""
    texts = ["draw a map", "draw it"]
    assert distinct(texts, 1) == 4 / 5
    assert distinct(texts, 2) == 1
    assert distinct(["draw it", "draw it"], 2) == 0.5
    assert distinct(["one"], 2) == 0
    assert distinct([], 1) == 0


def test_the_nearest_other_is_found() -> None:
    """Each text's score is the highest ROUGE-L with another one, not with itself."""
    texts = ["draw a map of the town", "draw a map of the sea", "name three rivers", "why"]
    words = [unicode_words(text) for text in texts]
    expected = [
        max(rouge_l(words[at], words[other]) for other in range(4) if other != at)
        for at in range(4)
    ]
    assert sorted(nearest_others(texts)) == pytest.approx(sorted(expected))
    assert nearest_others(["alone"]) == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_texts_can_be_measured(texts: list[str]) -> None:
    """Empty sets, surrogates, no words: counts add up and shares stay within 0 and 1."""
    found = measure([task(text) for text in texts])
    assert found.records == len(texts) == sum(found.verbs.values())
    assert all(0 <= share <= 1 for share in found.distinct.values())
    assert all(0 <= score <= 1 for score in found.nearest)


def test_lengths_and_verbs() -> None:
    """Words per field over the records that have it; verbs with the most common first."""
    found = measure([task("Draw a map"), task("Draw a fox", given="in red"), task("Name a sea")])
    assert found.lengths["instruction"].mean == 3
    assert (found.lengths["input"].records, found.lengths["input"].longest) == (1, 2)
    assert found.verbs == {"draw": 2, "name": 1}


def test_topics_tell_subjects_apart() -> None:
    """Two subjects fall into different topics, named by their own words, largest first."""
    texts = instructions(40, "cooking") + instructions(20, "space")
    topics, places = topics_of(texts)
    assert sum(topic.count for topic in topics) == 60
    assert [t.count for t in topics] == sorted((t.count for t in topics), reverse=True)
    assert not set(places[:40]) & set(places[40:])
    for topic, name in ((places[0], "cooking"), (places[-1], "space")):
        assert set(topics[topic].name.split(", ")) & set(SUBJECTS[name])
    assert topics_of(texts) == (topics, places)


def test_few_or_unlike_instructions_have_no_topics() -> None:
    """Below twenty there are none, nor where no two share a word."""
    assert topics_of(instructions(19, "space")) == ([], [])
    assert topics_of([f"word{n}" for n in range(30)]) == ([], [])


def test_coverage_names_the_seeds_without_descendants() -> None:
    """A seed is reached by being a parent, and near by its words: two different things."""
    seeds = [
        task("Draw a map of the town", "s1"),
        task("Name three rivers of Asia", "s2"),
        task("Explain why tea cools", "s3"),
    ]
    kept = [child("Draw a map of the sea", "s2"), child("Sing loudly", "s2")]
    found = coverage(seeds, kept)
    assert found.unreached == ["s1", "s3"]
    assert (found.seeds, found.near) == (3, 1)
    assert coverage([], kept).seeds == 0


def test_overlap_counts_each_side() -> None:
    """The same task in another spelling, a near-duplicate, and neither."""
    long = "the quick brown fox jumps over the lazy dog by the river every day"
    first = [task("Name a sea!"), task("Summarize", given=long), task("Draw a map")]
    second = [task("name a sea"), task("Summarize it", given=long), task("Bake bread now")]
    found = overlap(first, second)
    assert (found.same_of_first, found.same_of_second) == (1, 1)
    assert found.near_of_first == found.near_of_second == 2


def test_compare_prints_both_sides(tmp_path: Path, fake_server: Running) -> None:
    """A run beside a dataset: a table for people, JSON for programs, and nothing is written."""
    run = runs.make(tmp_path, fake_server.url, target=30)
    run.generate()
    path = tmp_path / "other.jsonl"
    rows = [
        {"instruction": r.candidate.instruction, "output": r.candidate.output or "x"}
        for r in run.records()[:10]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    before = sorted(p for p in run.folder.path.rglob("*") if "run.db" not in p.name)
    arguments = ["compare", str(run.folder.path), str(path)]
    table = CliRunner().invoke(cli, arguments, catch_exceptions=False).output
    assert "records" in table
    assert "near-duplicates" in table
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert found["first"]["diversity"]["records"] == 30
    assert found["second"]["diversity"]["records"] == 10
    no_input = sum(not r.candidate.input for r in run.records()[:10])
    assert found["overlap"]["same_of_second"] == no_input
    assert sum(t["first"] for t in found["topics"]) in (0, 30)
    assert sorted(p for p in run.folder.path.rglob("*") if "run.db" not in p.name) == before
    assert selfinstruct.Run(run.folder.path).compare(path).second.diversity.records == 10


def test_the_report_shows_diversity(tmp_path: Path, fake_server: Running) -> None:
    """The section has its tables, and foreign text in a seed is escaped."""
    run = runs.make(tmp_path, fake_server.url, target=30)
    run.generate()
    page = run.report().read_text("utf-8")
    for head in ("Distinct words", "Nearness to each other", "Topics", "Coverage of the seeds"):
        assert f"<h3>{head}</h3>" in page
    found = coverage([task("Draw <b>it</b>", "<s1>")], [])
    section = diversity_section(measure([]), None, found, {"<s1>": "Draw <b>it</b>"})
    assert "<b>" not in section
    assert "&lt;s1&gt;" in section
    assert "needs the extra semantic" in section
