"""Rules: what each finds and leaves alone, its action, and flags up to the dataset."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.recipe import FiltersConfig, RulesConfig
from selfinstruct.core.recipe_file import load_recipe
from selfinstruct.core.types import Candidate, Record, Verdict
from selfinstruct.steps import tables
from selfinstruct.steps.filters.judge import Judge, build_filters
from selfinstruct.steps.filters.rules import REASONS, all_rules
from selfinstruct.steps.rules.phrases import load_phrases
from selfinstruct.steps.rules.view import View

EVERY = dict.fromkeys(REASONS, "flag")
RULES = all_rules(RulesConfig.model_validate(EVERY))

# For each rule: records it must find, and near ones that are right. (instruction, input, output)
FOUND: dict[str, list[tuple[str, str, str]]] = {
    "ai_boilerplate": [
        ("What is your favourite food?", "", "As an AI language model, I do not eat."),
        ("What is your favourite food?", "", "I don't eat.\nas a  language model I can't."),
    ],
    "no_input": [
        ("Name a colour", "<noinput>", "Red"),
        ("Name a colour", '"No input."', "Red"),
        ("Name a colour", "N/A", "Red"),
    ],
    "no_output": [("Design a logo", "", "<nooutput>"), ("Design a logo", "", "N/A.")],
    "repetition": [
        ("Write a poem", "", "Roses are red. " + "and so it goes on " * 6),
        ("Write a poem", "", "la " * 30),
        ("写一首诗", "", "我喜欢你。" * 100),
    ],
}
RIGHT: dict[str, list[tuple[str, str, str]]] = {
    "ai_boilerplate": [
        ("Explain what a language model says of itself", "", "As an AI language model, it says"),
        ("Name a profession", "", "He works as an aide, as an AIDS researcher."),
    ],
    "no_input": [("Is this a word?", "none of it", "No"), ("Name a colour", "", "Red")],
    "no_output": [("Which are prime: 4, 6?", "", "None"), ("Expand it", "", "Not applicable here")],
    "repetition": [
        ("Name numbers", "", ", ".join(map(str, range(300)))),
        ("Write a refrain", "", "la la la, sing with me, la la la"),
        ("Make a table", "", "| a | b |\n" + "|   |   |\n" * 12),
    ],
}  # fmt: skip


def found(rule: str, record: tuple[str, str, str]) -> str:
    return RULES[rule](View(*record))


def test_every_rule_has_its_records() -> None:
    """No rule without a record that it finds and one that it leaves alone."""
    assert set(FOUND) == set(RIGHT) == set(REASONS) == set(RulesConfig().actions)


@pytest.mark.parametrize(
    ("rule", "record"), [(rule, record) for rule, records in FOUND.items() for record in records]
)
def test_a_rule_finds_its_fault(rule: str, record: tuple[str, str, str]) -> None:
    """The finding is one line of words."""
    detail = found(rule, record)
    assert detail
    assert "\n" not in detail


@pytest.mark.parametrize(
    ("rule", "record"), [(rule, record) for rule, records in RIGHT.items() for record in records]
)
def test_a_rule_leaves_right_records_alone(rule: str, record: tuple[str, str, str]) -> None:
    """What only looks like the fault is no finding."""
    assert found(rule, record) == ""


def candidate(record: tuple[str, str, str], id: str = "c") -> Candidate:
    instruction, input, output = record
    return Candidate(
        id=id, slot=0, index=0, strategy="", instruction=instruction, input=input, output=output
    )


def judge(**rules: str) -> Judge:
    actions = dict.fromkeys(REASONS, "off") | rules
    return Judge(build_filters(FiltersConfig.model_validate({"rules": actions})))


def test_an_action_rejects_flags_or_does_nothing() -> None:
    """The same record under the three actions."""
    record = candidate(("Name a good colour", "<noinput>", "Red"))
    assert judge(no_input="reject").judge(record).reason == "no_input"
    flagged = judge(no_input="flag").judge(record)
    assert (flagged.reason, flagged.flags) == ("", ("no_input",))
    assert flagged.notes == ("'no input' in the input",)
    assert judge().judge(record) == Verdict(candidate_id="c")


def test_a_rejected_record_has_no_flags() -> None:
    """One reason rejects; flags are for what was kept."""
    record = candidate(("Design a good logo", "<noinput>", "<nooutput>"))
    verdict = judge(no_input="flag", no_output="reject").judge(record)
    assert (verdict.reason, verdict.flags) == ("no_output", ())


def test_off_needs_no_quotes_in_yaml(tmp_path: Path) -> None:
    """YAML reads a bare `off` as false; the recipe takes it as the action, and keeps it so."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "seeds: [x.jsonl]\nteacher: {kind: scripted, model: x}\n"
        "filters: {rules: {repetition: off, no_input: reject}}\n"
    )
    recipe = load_recipe(path)
    assert recipe.filters.rules.repetition == "off"
    again = yaml.safe_load(yaml.safe_dump(recipe.filters.rules.model_dump()))
    assert RulesConfig.model_validate(again) == recipe.filters.rules
    with pytest.raises(RecipeError, match=r"filters\.rules\.repetition"):
        load_recipe(path, ["filters.rules.repetition=on"])


def test_flags_reach_the_dataset() -> None:
    """A record's row lists its flags; old verdicts without the field read as unflagged."""
    record = Record(
        candidate=candidate(("Name a colour", "", "Red")),
        verdict=Verdict(candidate_id="c", flags=("no_input",), notes=("x",)),
    )
    assert tables.record_row(record)["flags"] == ["no_input"]
    old = b'{"candidate_id":"c","reason":"","detail":"","neighbour":"","score":null}'
    assert msgspec.json.decode(old, type=Verdict).flags == ()


ENTRY = "rules:\n  - rule: no_input\n    part: input\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file must be a mapping with the key rules"),
        ("rules: [3]", r"rules\[0\] must be a mapping with the keys rule and words"),
        (ENTRY, r"the key 'rules\[0\].words' is missing"),
        (ENTRY + "    words: [a, no]\n", r"rules\[0\].words\[1\] is False, not text; quote it"),
        (ENTRY + "    words: [' ']\n", r"rules\[0\].words\[0\] is empty"),
        (ENTRY + "    words: [a]\n    unles: [b]", r"'rules\[0\].unles'; did you mean 'unless'"),
        (
            ENTRY + "    words: [a]\n    place: top",
            r"rules\[0\].place: 'top' is none of 'anywhere'",
        ),
        (ENTRY.replace("no_input", "noinput"), r"rules\[0\].rule: 'noinput' is none of"),
    ],
)
def test_a_bad_file_of_phrases_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """Whatever is wrong with a file of phrases, the error says where and what is known there."""
    path = tmp_path / "phrases.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        load_phrases(path)
    assert "phrases.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
