"""Strategies: what they ask, and what they read from the reply."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.ids import make_request
from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.types import Candidate, Completion, Passage, Request, Sampling, SeedTask
from selfinstruct.steps.strategies.build import STRATEGIES, make_strategy
from selfinstruct.steps.strategies.shapes import Draft, Pool, Strategy

SEEDS = [
    SeedTask(id=f"s{n}", instruction=f"Task number {n}", input="in" * (n % 2), output=f"out {n}")
    for n in range(20)
]
SAMPLING = Sampling(max_tokens=100, temperature=0.7)


def pool(machine: int = 0) -> Pool:
    """Twenty seeds and some machine-written records."""
    made = Pool(SEEDS, [Passage(id="d#1", text="A rule."), Passage(id="d#2", text="Another.")])
    for n in range(machine):
        made.add(
            Candidate(
                id=f"m{n}", slot=n, index=0, strategy="x", instruction=f"Made {n}", output="o"
            )
        )
    return made


def strategy(kind: str, **settings: Any) -> Strategy:
    """A strategy with its default prompt."""
    return make_strategy(StrategyConfig(kind=kind, **settings), SAMPLING, "<|im_start|>user\n")  # type: ignore[arg-type]


def ask(made: Strategy, draft: Draft) -> Request:
    """The draft as a request."""
    return make_request(
        teacher="t",
        model="m",
        sampling=draft.sampling,
        messages=draft.messages,
        prompt=draft.prompt,
        sample=0,
        strategy=made.name,
        parents=draft.parents,
    )


def reply(request: Request, text: str, finish: str = "stop") -> Completion:
    """A reply with this text."""
    return Completion(request_id=request.id, text=text, finish=finish, cost=9)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(STRATEGIES))
def test_a_draw_depends_on_its_stream_alone(kind: str) -> None:
    """The same random stream and view give the same draft; names match the recipe's."""
    made = strategy(kind)
    first = made.draw(pool(9).view(5), random.Random("42/7"))
    assert first == made.draw(pool(50).view(5), random.Random("42/7"))
    assert made.name == kind


def test_the_classic_mix_shows_six_human_and_two_machine_examples() -> None:
    """Self-Instruct's proportions, with seeds in the machine's places until there are records."""
    made = strategy("self-instruct")
    parents = made.draw(pool(10).view(10), random.Random(1)).parents
    assert sum(parent.startswith("m") for parent in parents) == 2
    assert len(parents) == 8
    early = made.draw(pool(10).view(1), random.Random(1)).parents
    assert sum(parent.startswith("m") for parent in early) == 1
    assert len(early) == 8


@given(st.integers(0, 30), st.integers(0, 10), st.integers(0, 10), st.integers())
def test_a_view_shows_no_later_record(seen: int, seeds: int, machine: int, seed: int) -> None:
    """However many are asked for, only what the view holds is drawn, without repeats."""
    drawn = pool(30).view(seen).draw(random.Random(seed), seeds, machine)
    ids = [example.id for example in drawn]
    assert len(set(ids)) == len(ids)
    assert all(int(name[1:]) < seen for name in ids if name.startswith("m"))
    assert len(ids) == min(seeds + machine, len(SEEDS) + min(machine, seen))


def test_alpaca_ends_inside_the_next_instruction() -> None:
    """The prompt shows its examples numbered and leaves the next instruction open."""
    made = strategy("alpaca", examples=3, tasks_per_request=9)
    draft = made.draw(pool().view(0), random.Random(0))
    text = draft.messages[-1].content
    assert text.endswith("###\n4. Instruction:")
    assert "up to number 9" in text
    assert len(draft.parents) == 3
    request = ask(made, draft)
    found = made.parse(
        request, reply(request, " A\n4. Output: a\n###\n5. Instruction: B\n5. Output: b")
    )
    assert [(c.instruction, c.output) for c in found] == [("A", "a"), ("B", "b")]
    assert sum(c.cost for c in found) == 9


def test_self_instruct_reads_lines_then_instances() -> None:
    """Numbered lines become candidates; the second reply adds input, output, request and cost."""
    made = strategy("self-instruct")
    request = ask(made, made.draw(pool().view(0), random.Random(0)))
    found = made.parse(
        request, reply(request, "9. Name a tree.\n10. **Rank these.**\n11. Cut of", "length")
    )
    assert [(c.instruction, c.defect) for c in found] == [
        ("Name a tree.", ""),
        ("Rank these.", ""),
        ("Cut of", "incomplete"),
    ]
    second = ask(made, made.answer(found[1]))
    assert "Rank these." in second.messages[0].content
    whole = made.finish(found[1], second, reply(second, "Input: 3, 1\nOutput: 1, 3"))
    assert (whole.input, whole.output, whole.cost) == ("3, 1", "1, 3", found[1].cost + 9)
    assert whole.requests == (request.id, second.id)
    assert made.finish(found[0], second, reply(second, "An oak.")).output == "An oak."
    assert made.finish(found[0], second, reply(second, "Input: x")).defect == "malformed"
    assert made.finish(found[0], second, reply(second, "An o", "length")).defect == "incomplete"
    assert made.parse(request, reply(request, "No."))[0].defect == "unparseable"


def test_json_constrains_and_reads_one_object() -> None:
    """The request carries a schema; objects are read from code blocks and chatter too."""
    made = strategy("json", examples=2)
    draft = made.draw(pool().view(0), random.Random(0))
    assert draft.sampling.schema is not None
    shown = [line for line in draft.messages[0].content.splitlines() if line.startswith("{")]
    assert [set(orjson.loads(line)) for line in shown] == [{"instruction", "input", "output"}] * 2
    request = ask(made, draft)

    def read(text: str, finish: str = "stop") -> tuple[str, str, str, str]:
        [c] = made.parse(request, reply(request, text, finish))
        return c.instruction, c.input, c.output, c.defect

    whole = '{"instruction": " A ", "input": "none", "output": "a"}'
    assert read(whole) == ("A", "", "a", "")
    assert read(f"Sure!\n```json\n{whole}\n```") == ("A", "", "a", "")
    assert read('{"instruction": "A"}')[3] == "malformed"
    assert read('{"instruction": 3, "output": []}')[3] == "malformed"
    assert read("[1, 2]")[3] == "unparseable"
    assert read("hello")[3] == "unparseable"
    assert read('{"instruction": "A', "length")[3] == "incomplete"


def test_magpie_sends_the_header_alone_and_then_asks() -> None:
    """The first prompt is the user header; the second asks what came back, as it is."""
    made = strategy("magpie")
    draft = made.draw(pool().view(0), random.Random(0))
    assert (draft.prompt, draft.messages, draft.parents) == ("<|im_start|>user\n", (), ())
    request = ask(made, draft)
    [found] = made.parse(request, reply(request, " How deep is it? "))
    second = made.answer(found)
    assert second.messages[0].content == "How deep is it?"
    answered = made.finish(found, ask(made, second), reply(request, "Very."))
    assert (answered.instruction, answered.output) == ("How deep is it?", "Very.")


def test_a_strategys_own_limits_go_before_the_teachers() -> None:
    """Temperature and max_tokens of the entry override the teacher's."""
    made = strategy("alpaca", temperature=0.1, max_tokens=7)
    sampling = made.draw(pool().view(0), random.Random(0)).sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.1, 7)
    for kind in ("magpie", "self-instruct"):
        two = strategy(kind, answer_temperature=0.2)
        draft = two.draw(pool().view(0), random.Random(0))
        written = two.parse(ask(two, draft), reply(ask(two, draft), "9. Ask me something."))
        assert (draft.sampling.temperature, two.answer(written[0]).sampling.temperature) == (
            0.7,
            0.2,
        )
