"""Shape: defects, unstorable characters, lengths, and outputs that say nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import selfinstruct
from selfinstruct.core.types import Candidate
from selfinstruct.steps.filters.shape import (
    CHARACTERS_PER_WORD,
    DEFECTS,
    InstructionShape,
    OutputShape,
)

ROOT = Path(selfinstruct.__file__).parent


def candidate(
    instruction: str, *, input: str = "", output: str = "", defect: str = ""
) -> Candidate:
    return Candidate(
        id="c",
        slot=0,
        index=0,
        strategy="",
        instruction=instruction,
        input=input,
        output=output,
        defect=defect,
    )


def reason(shape: InstructionShape | OutputShape, item: Candidate) -> str:
    verdict = shape.check(item)
    return verdict.reason if verdict else ""


@pytest.mark.parametrize("defect", [*DEFECTS, "something_new"])
def test_a_defect_is_the_reason(defect: str) -> None:
    """What the parser found is the reason, before anything else, and known ones are explained."""
    verdict = InstructionShape().check(candidate("", defect=defect))
    assert verdict is not None
    assert verdict.reason == defect
    assert verdict.detail == DEFECTS.get(defect, "found while reading the reply")


def defects_in_the_code() -> set[str]:
    """The module constants whose value is passed on as a defect, in strategies and engine."""
    constants: dict[str, str] = {}
    used: set[str] = set()
    for path in [*(ROOT / "steps" / "strategies").glob("*.py"), *(ROOT / "engine").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                        constants[target.id] = node.value.value
            if isinstance(node, ast.Name) and node.id.isupper():
                used.add(node.id)
            if isinstance(node, ast.keyword) and node.arg == "defect":
                used |= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return {constants[name] for name in used if name in constants}


def test_every_known_defect_still_exists() -> None:
    """A defect that no parser gives any more does not stay in the list of reasons."""
    assert set(DEFECTS) <= defects_in_the_code()


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("", "empty_instruction"),
        (" \n\t", "empty_instruction"),
        ("Say hello", "instruction_too_short"),
        ("Say hello twice", ""),
        ("word " * 10, ""),
        ("word " * 11, "instruction_too_long"),
        ("x" * (10 * CHARACTERS_PER_WORD) + " a b", "instruction_too_long"),
        ("a-" * 10_000, "instruction_too_long"),
        ("翻译句子吧", ""),  # 5 characters count as 3 words
        ("翻译吧", "instruction_too_short"),
        ("😀 😀 😀 😀", "instruction_too_short"),
        ("اكتب قصة قصيرة", ""),
        ("\u202eSay it\u202c backwards", ""),
    ],
)
def test_length_of_the_instruction(instruction: str, expected: str) -> None:
    """Words are counted within the bounds; text without letters has none."""
    assert reason(InstructionShape(min_words=3, max_words=10), candidate(instruction)) == expected


def test_bounds_are_in_the_detail() -> None:
    """The detail says how long the instruction is and how long it may be."""
    verdict = InstructionShape(min_words=3, max_words=10).check(candidate("Say hello"))
    assert verdict is not None
    assert verdict.detail == "2 words, at least 3"


def test_no_minimum_keeps_text_without_words() -> None:
    """With `min_words` 0 only emptiness is too short."""
    assert reason(InstructionShape(min_words=0), candidate("?!")) == ""


@pytest.mark.parametrize("point", [0, 0xD800, 0xDFFF])
@pytest.mark.parametrize("part", ["instruction", "input", "output"])
def test_text_that_cannot_be_stored_is_named(point: int, part: str) -> None:
    """A null or a lone surrogate anywhere is rejected with its place."""
    texts = {
        "instruction": "Name three colours",
        "input": "",
        "output": "",
        part: f"a b c {chr(point)}",
    }
    verdict = InstructionShape().check(candidate(**texts))
    assert verdict is not None
    assert verdict.reason == "invalid_characters"
    assert verdict.detail == f"U+{point:04X} at character 7 of the {part}"


@pytest.mark.parametrize(
    ("input", "output", "expected"),
    [
        ("", "", "empty_output"),
        ("", " \n", "empty_output"),
        ("some text", " some text\n", "output_equals_input"),
        ("one two", "one\n\ntwo", ""),  # line breaks may be what was asked for
        ("", "Name three colours", "output_equals_instruction"),
        ("", "Red, green, blue", ""),
    ],
)
def test_output(input: str, output: str, expected: str) -> None:
    """An output that is empty or repeats the task teaches nothing."""
    item = candidate("Name three colours", input=input, output=output)
    assert reason(OutputShape(), item) == expected
    assert reason(InstructionShape(), item) == ""
