"""Questions about documents: each passage in its turn, and every form of reply read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.types import Candidate, Passage
from selfinstruct.steps.strategies.shapes import Pool
from tests.test_strategies import SEEDS, ask, reply, strategy

PASSAGES = [
    Passage(id=f"d#{n}", text=f"Rule {n} holds for {n} months.", title=f"Rules > {n}")
    for n in range(7)
]


def about(passage: str, name: str) -> Candidate:
    """A kept record that was written from a passage."""
    return Candidate(
        id=name,
        slot=0,
        index=0,
        strategy="documents",
        instruction=f"What is {name}?",
        output="o",
        parents=(passage, "s1"),
    )


def drawn(pool: Pool, slot: int, **settings: Any) -> tuple[str, tuple[str, ...]]:
    """The user message and the parents of a slot's request."""
    draft = strategy("documents", **settings).draw(
        pool.view(len(pool.machine), slot=slot), random.Random(slot)
    )
    return draft.messages[-1].content, draft.parents


def test_every_passage_has_its_turn() -> None:
    """Once before any comes again, in another order each time, by the run's seed alone."""
    pool = Pool(SEEDS, PASSAGES, seed=3)
    turns = [drawn(pool, slot)[1][0] for slot in range(21)]
    rounds = [turns[at : at + 7] for at in (0, 7, 14)]
    assert [sorted(one) for one in rounds] == [[p.id for p in PASSAGES]] * 3
    assert rounds[0] != rounds[1]
    again = Pool(SEEDS, PASSAGES, seed=3)
    assert [drawn(again, slot)[1][0] for slot in (5, 20, 1)] == [turns[5], turns[20], turns[1]]
    other = Pool(SEEDS, PASSAGES, seed=4)
    assert [drawn(other, slot)[1][0] for slot in range(7)] != rounds[0]


def test_the_prompt_shows_passage_examples_and_what_was_asked() -> None:
    """Of the kept records only those about this passage that the slot may know."""
    pool = Pool(SEEDS, PASSAGES)
    first = drawn(pool, 0, questions=4)[1][0]
    text, parents = drawn(pool, 0, questions=4)
    (passage,) = (p for p in PASSAGES if p.id == first)
    assert f"stands under: {passage.title}\n\n{passage.text}\n" in text
    assert "Write 4 new questions" in text
    assert len(parents) == 3
    assert set(parents[1:]) <= {seed.id for seed in SEEDS}
    assert text.count('{"instruction": "Task number ') == 2
    assert "Asked already:\n(none)" in text
    for name, passage_id in (("one", first), ("two", "d#x"), ("three", first)):
        pool.add(about(passage_id, name))
    draft = strategy("documents").draw(pool.view(2, slot=0), random.Random(0))
    assert "Asked already:\n- What is one?\n\n" in draft.messages[-1].content
    assert "three" in drawn(pool, 0)[0]


def test_without_seeds_no_examples_are_shown() -> None:
    """The passage is the only parent."""
    text, parents = drawn(Pool([], PASSAGES), 2)
    assert "on other matters:\n(none)\n" in text
    assert len(parents) == 1


def test_a_request_that_was_too_long_shows_less() -> None:
    """The passage counts as one of the examples, and stays."""
    pool = Pool(SEEDS, PASSAGES)
    passage = drawn(pool, 0)[1][0]
    pool.add(about(passage, "one"))
    for most, shown in ((2, 1), (1, 0)):
        view = pool.view(1, slot=0).at_most(most)
        draft = strategy("documents").draw(view, random.Random(0))
        assert draft.parents[0] == passage
        assert len(draft.parents) == 1 + shown
        assert "What is one?" not in draft.messages[-1].content


def read(text: str, finish: str = "stop") -> list[tuple[str, str, str]]:
    """Instruction, output and defect of each candidate in a reply."""
    made = strategy("documents")
    draft = made.draw(Pool(SEEDS, PASSAGES).view(0), random.Random(1))
    request = ask(made, draft)
    found = made.parse(request, reply(request, text, finish))
    assert sum(candidate.cost for candidate in found) == 9
    assert [candidate.index for candidate in found] == list(range(len(found)))
    assert {candidate.parents for candidate in found} == {draft.parents}
    return [(one.instruction, one.output, one.defect) for one in found]


TASK = {"instruction": " A? ", "output": "a"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"tasks": [TASK]}),
        f"Sure!\n```json\n{json.dumps({'tasks': [TASK]}, indent=2)}\n```\nDone.",
        json.dumps([TASK]),
        json.dumps({"questions": [TASK]}),
        json.dumps(TASK),
        'Here: {"question": "A?", "answer": "a"}',
    ],
)
def test_a_task_is_found_however_it_is_wrapped(text: str) -> None:
    """In the object that was asked for, a code block, a list, or alone."""
    assert read(text) == [("A?", "a", "")]


def test_what_is_no_task_is_a_defect() -> None:
    """Each with its name, so that what came in adds up."""
    assert read("I cannot.") == [("", "I cannot.", "unparseable")]
    assert read('{"tasks": []}') == [("", '{"tasks": []}', "nothing_to_ask")]
    assert read('{"tasks": [{"instruction": "A?"}, 3, {"instruction": "B?", "output": 5}]}') == [
        ("A?", "", "malformed"),
        ("", "", "malformed"),
        ("B?", "5", "malformed"),
    ]


def test_a_reply_need_not_be_strict_json() -> None:
    """Line ends may stand in its texts; half a surrogate pair, which no file holds, may not."""
    assert read('{"tasks": [{"instruction": "A?", "output": "a\n\tb"}]}') == [("A?", "a\n\tb", "")]
    halved = r'{"tasks": [{"instruction": "A \ud83d?", "output": "a", "input": "\ude00"}]}'
    assert read(halved) == [("A ??", "a", "malformed")]


def test_a_reply_that_was_cut_keeps_its_whole_tasks() -> None:
    """What it broke off in is incomplete."""
    text = json.dumps({"tasks": [TASK, TASK]})[:-9]
    assert read(text, "length") == [("A?", "a", ""), ("", "", "incomplete")]
    assert read('{"tasks": [{"instr', "length") == [("", '{"tasks": [{"instr', "incomplete")]


@given(st.text(alphabet='{}[]":,ab\\ n', max_size=200) | st.just('{"a":' * 40_000))
def test_any_reply_is_read(text: str) -> None:
    """In time, as at least one candidate."""
    assert read(text)
    assert read(text, "length")
