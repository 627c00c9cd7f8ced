"""Copies: what a small teacher repeats of the examples it was shown."""

from __future__ import annotations

import pytest

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.filters.copied import COPIED, Copied

SEED = SeedTask(
    id="seed",
    instruction="Rewrite the sentence in the past tense.",
    input="She walks to school.",
    output="She walked to the school yesterday.",
)
RECORD = Candidate(
    id="record",
    slot=0,
    index=0,
    strategy="",
    instruction="Tell me what the capital of a country is.",
    input="France",
    output="Paris",
)


BARE = SeedTask(id="bare", instruction="Is water wet?", output="Yes")


def candidate(
    instruction: str,
    input: str = "",
    output: str = "",
    parents: tuple[str, ...] = ("record", "seed"),
) -> Candidate:
    return Candidate(
        id="c",
        slot=1,
        index=0,
        strategy="",
        instruction=instruction,
        input=input,
        output=output,
        parents=parents,
    )


def primed(**settings: object) -> Copied:
    copied = Copied(**settings)  # type: ignore[arg-type]
    copied.add(SEED)
    copied.add(RECORD)
    copied.add(BARE)
    return copied


@pytest.mark.parametrize(
    ("item", "parent", "detail"),
    [
        (candidate("REWRITE the sentence in the past tense"), "seed", "the same instruction"),
        (candidate("Rewrite this sentence in the past tense."), "seed", "ROUGE-L 0.857"),
        (candidate("Tell what the capital of that country is"), "record", "ROUGE-L"),
        (candidate("Turn it into past", output=SEED.output), "seed", "the same output"),
        (candidate("Name its main city", "France", "Paris"), "record", "the same input and output"),
    ],
)
def test_a_copy_names_its_parent(item: Candidate, parent: str, detail: str) -> None:
    """Wording, nearness, output, or input with output of a parent make a copy; it is named."""
    verdict = primed().check(item)
    assert verdict is not None
    assert (verdict.reason, verdict.neighbour) == (COPIED, parent)
    assert verdict.detail.startswith(detail)
    assert verdict.detail.endswith(f"of example {parent}")
    assert (verdict.score is not None) == detail.startswith("ROUGE-L")


@pytest.mark.parametrize(
    "item",
    [
        candidate("List three uses of an old bicycle.", "", "Art, a lamp, a wheel"),
        candidate("Name the largest city there", "", "Paris"),  # short outputs are equal by chance
        candidate("Name the largest city there", "Texas", "Paris"),
        candidate("List three verbs", SEED.input, "walk, go, run"),  # the input alone may be reused
        candidate("Do birds lay eggs in spring", "", "Yes", parents=("bare",)),
        candidate("Leave this empty", SEED.input, ""),
        candidate(SEED.instruction, parents=("record",)),  # not shown to this one
        candidate(SEED.instruction, parents=("never added",)),
        candidate(SEED.instruction, parents=()),
    ],
)
def test_what_is_no_copy(item: Candidate) -> None:
    """New text, short or partly equal answers, and text of others than its parents are none."""
    assert primed().check(item) is None


def test_the_threshold_is_passed_and_not_met() -> None:
    """At exactly the threshold a candidate is no copy, as for novelty."""
    copied = Copied(0.5)
    copied.add(SeedTask(id="seed", instruction="a b c d", output="x"))
    assert copied.check(candidate("a b y z")) is None
    assert copied.check(candidate("a b c z")) is not None


def test_inputs_count_where_novelty_compares_them() -> None:
    """With "instruction+input" the same instruction over another input is no copy."""
    item = candidate(
        SEED.instruction, "All of our cats are sleeping on the old sofa by the window."
    )
    assert primed().check(item) is not None
    assert primed(field="instruction+input").check(item) is None
    again = candidate(SEED.instruction.upper(), SEED.input)
    verdict = primed(field="instruction+input").check(again)
    assert verdict is not None
    assert verdict.detail.startswith("the same instruction+input")


def test_a_copy_in_another_script_is_found() -> None:
    """Wording is compared in any script, whatever the tokenizer."""
    copied = Copied(tokenizer="alpaca")
    copied.add(SeedTask(id="seed", instruction="Назови три причины", output="x"))
    assert copied.check(candidate("назови три причины!")) is not None
