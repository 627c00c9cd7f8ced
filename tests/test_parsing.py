"""Reading tasks out of replies, however they are formed, and losing none silently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Candidate, Completion, Message, Request, Sampling
from selfinstruct.steps.strategies.parsing import (
    candidates_from_items,
    clean_input,
    numbered_items,
    share_cost,
)

REQUEST: Request = make_request(
    teacher="t",
    model="m",
    sampling=Sampling(max_tokens=100),
    messages=(Message("user", "x"),),
    sample=0,
    slot=4,
    strategy="alpaca",
    parents=("seed-1",),
)


def parse(text: str, finish: str = "stop", cost: int = 10) -> list[Candidate]:
    """The candidates of a reply to a list that ends inside an instruction."""
    completion = Completion(request_id=REQUEST.id, text=text, finish=finish, cost=cost)  # type: ignore[arg-type]
    return candidates_from_items(numbered_items(text, True), REQUEST, completion)


def tasks(text: str, finish: str = "stop") -> list[tuple[str, str, str, str]]:
    """Instruction, input, output and defect of each."""
    return [(c.instruction, c.input, c.output, c.defect) for c in parse(text, finish)]


CONTINUED = """ Name a colour.
4. Input:
<noinput>
4. Output:
Blue
###
5. Instruction: Sum up the text.
5. Input:
A long text
over two lines.
5. Output:
Short."""


@pytest.mark.parametrize(
    "text",
    [
        CONTINUED,
        "4. Instruction:" + CONTINUED,
        CONTINUED.replace("###", "---"),
        CONTINUED.replace("###\n", "\n"),
        "4. Instruction:" + CONTINUED.replace("<noinput>", "None"),
        "**4. Instruction:**" + CONTINUED.replace("5. Instruction:", "**5. Instruction:**"),
        "### 4. Instruction:" + CONTINUED.replace("5. Instruction:", "### 5. Instruction:"),
        "4) Instruction:" + CONTINUED.replace("5. ", "5) ").replace("4. ", "4) "),
        "Instruction:" + CONTINUED.replace("5. ", "").replace("4. ", ""),
        CONTINUED.replace("\n4. Input:\n<noinput>", ""),
        CONTINUED.replace("Instruction", "INSTRUCTION").replace("Output", "output"),
    ],
)
def test_the_forms_of_a_list(text: str) -> None:
    """Continued or begun again, numbered, bold, in headings or bare: the same two tasks."""
    assert tasks(text) == [
        ("Name a colour.", "", "Blue", ""),
        ("Sum up the text.", "A long text\nover two lines.", "Short.", ""),
    ]


def test_a_cut_reply_keeps_its_whole_items() -> None:
    """Only the item that the length limit cut is incomplete."""
    assert [task[3] for task in tasks(CONTINUED, "length")] == ["", "incomplete"]


def test_labels_inside_an_output_are_text() -> None:
    """Where the list is numbered, a program's own "Output:" does not end the task."""
    text = (
        "4. Instruction: Run it.\n4. Output:\nOutput: 5\nInput: 3\n###\n"
        "5. Instruction: B\n5. Output: b"
    )
    assert tasks(text) == [("Run it.", "", "Output: 5\nInput: 3", ""), ("B", "", "b", "")]


def test_what_is_no_task_is_kept_as_unparseable() -> None:
    """A reply without any label is one candidate with its text, so that people can look at it."""
    [found] = parse("I cannot help with that.")
    assert (found.defect, found.output) == ("unparseable", "I cannot help with that.")
    assert (found.parents, found.requests, found.cost) == (("seed-1",), (REQUEST.id,), 10)


def test_a_task_without_output_is_malformed() -> None:
    """So is one with two outputs."""
    text = "4. Instruction: A\n5. Instruction: B\n5. Output: b\n5. Output: c"
    assert [task[3] for task in tasks(text)] == ["malformed", "malformed"]


@pytest.mark.parametrize(
    "text",
    ["<noinput>", "<No Input>", "no input", "None", "N/A", "n/a.", "(none)", "[no input]", "",
     "No input required", "no-input", "Not applicable"],
)  # fmt: skip
def test_spellings_of_no_input(text: str) -> None:
    """Teachers write "no input" in many ways; all mean an empty input."""
    assert clean_input(f" {text} ") == ""


def test_real_inputs_stay() -> None:
    """A text that begins like one of them is an input."""
    assert clean_input(" None of the above. ") == "None of the above."
    assert clean_input("No input device found") == "No input device found"


@given(st.integers(1, 50), st.integers(0, 10**12))
def test_costs_are_shared_to_the_last_picodollar(count: int, cost: int) -> None:
    """The candidates of a reply carry its whole cost together."""
    shared = share_cost([parse("x")[0]] * count, cost)
    assert sum(candidate.cost for candidate in shared) == cost


@given(
    st.text(alphabet=st.sampled_from("0123456789.:#*-\n abIinputOutputInstruction<>"), max_size=300)
)
def test_any_text_gives_candidates(text: str) -> None:
    """Whatever comes back is parsed without an error, and never to nothing."""
    found = parse(text)
    assert found
    assert [c.index for c in found] == list(range(len(found)))


WORDS = st.text(alphabet="abcdefgh ", min_size=1, max_size=20).map(str.strip).filter(bool)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=12))
def test_a_list_in_the_prompts_form_comes_back_whole(items: list[tuple[str, str, str]]) -> None:
    """What is written as the prompt shows it is read as it was meant."""
    text = "\n".join(
        f"###\n{n}. Instruction: {a}\n{n}. Input:\n{b}\n{n}. Output:\n{c}"
        for n, (a, b, c) in enumerate(items, 4)
    )
    assert [(c.instruction, c.input, c.output) for c in parse(text)] == [
        (a, b, c) for a, b, c in items
    ]
