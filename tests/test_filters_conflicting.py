"""Conflicts: the same task again, with the same output or with another one."""

from __future__ import annotations

import pytest

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.filters.conflicting import CONFLICTING, EXACT_DUPLICATE, Conflicting

FIRST = SeedTask(id="first", instruction="Add the numbers.", input="2 3", output="5")


def candidate(instruction: str, input: str = "2 3", output: str = "5", id: str = "c") -> Candidate:
    return Candidate(
        id=id, slot=0, index=0, strategy="", instruction=instruction, input=input, output=output
    )


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (candidate("Add the numbers."), EXACT_DUPLICATE),
        (candidate("ADD the  numbers", " 2 3\n", "5 "), EXACT_DUPLICATE),
        (candidate("Add the numbers.", output="6"), CONFLICTING),
        (candidate("Add the numbers.", "2  3"), ""),  # inputs are data
        (candidate("Add the numbers.", "3 4", "7"), ""),
        (candidate("Multiply the numbers.", output="6"), ""),
    ],
)
def test_verdict(item: Candidate, reason: str) -> None:
    """Wording decides on instructions, exact text on inputs, and the output names the reason."""
    conflicting = Conflicting()
    conflicting.add(FIRST)
    verdict = conflicting.check(item)
    assert (verdict.reason if verdict else "") == reason
    if verdict:
        assert verdict.neighbour == "first"
        assert "first" in verdict.detail


def test_an_exact_duplicate_is_preferred_to_a_conflict() -> None:
    """Where seeds contradict each other, a copy of the second is a duplicate of that one."""
    conflicting = Conflicting()
    conflicting.add(FIRST)
    conflicting.add(candidate("Add the numbers.", output="6", id="second"))
    verdict = conflicting.check(candidate("Add the numbers.", output="6"))
    assert verdict is not None
    assert (verdict.reason, verdict.neighbour) == (EXACT_DUPLICATE, "second")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (candidate("a b", "c"), candidate("a", "b c")),
        (candidate("a|b", ""), candidate("a", "b")),
        (candidate("a", "b|c"), candidate("a|b", "c")),
        (candidate("What is 2+2?", ""), candidate("What is 2-2?", "")),
        (candidate("😀", ""), candidate("😃", "")),
    ],
)
def test_parts_are_kept_apart(one: Candidate, other: Candidate) -> None:
    """Text that moves from one field to another makes another task."""
    conflicting = Conflicting()
    conflicting.add(one)
    assert conflicting.check(other) is None


def test_surrogates_are_taken() -> None:
    """Text that UTF-8 cannot hold is compared like other text."""
    conflicting = Conflicting()
    conflicting.add(candidate("\ud800", "\udfff", "\ud800"))
    verdict = conflicting.check(candidate("\ud800", "\udfff", "\ud801"))
    assert verdict is not None
    assert verdict.reason == CONFLICTING
