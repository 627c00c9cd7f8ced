"""Grounding: answers that their passage does not bear out are rejected, each for its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.sections.filters import FiltersConfig, GroundedConfig
from selfinstruct.core.types import Candidate, Passage
from selfinstruct.steps.filters.grounded import Grounded
from selfinstruct.steps.filters.judge import build_filters

PASSAGE = Passage(
    id="dental#1",
    title="Dental cover > Limits of 2026",
    text=(
        "Dental cover begins after a waiting period of eight months. We pay 80% of the costs of "
        "fillings, up to 1,500 euros a year. Half a million customers have it."
    ),
)
DEFAULTS = GroundedConfig()


def grounded(**settings: object) -> Grounded:
    config = GroundedConfig.model_validate(settings)
    return Grounded([PASSAGE], config.precision, config.figures, config.references)


def record(instruction: str, output: str, *parents: str) -> Candidate:
    plain = Candidate.plain("c", instruction, "", output)
    return Candidate(
        id=plain.id,
        slot=0,
        index=0,
        strategy="documents",
        instruction=instruction,
        output=output,
        parents=parents or ("s1", PASSAGE.id),
    )


def reason(instruction: str, output: str, **settings: object) -> str:
    verdict = grounded(**settings).check(record(instruction, output))
    return verdict.reason if verdict else ""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Dental cover begins after a waiting period of 8 months.", ""),
        ("After eight months.", ""),
        ("Up to 1500 euros in a year; 80 % of the costs of fillings.", ""),
        ("1. Fillings: 80%\n2. Waiting period: eight months\n3. Up to 1,500 euros", ""),
        ("There are two limits: 80% of the costs, and 1,500 euros.", ""),
        ("It was last changed in 2026.", ""),
        ("Some 500,000 customers have it.", "foreign_figure"),
        ("Dental cover begins after 6 months.", "foreign_figure"),
        ("We pay 90% of the costs of fillings.", "foreign_figure"),
        ("Photosynthesis turns sunlight into chemical energy within plants.", "not_grounded"),
        ("The passage says that cover begins after eight months.", "names_passage"),
        ("Yes.", ""),
        ("", ""),
    ],
)
def test_answers_are_held_against_their_passage(output: str, expected: str) -> None:
    """Words, figures in digits, and mentions of the passage; counts in words are the answer's."""
    assert reason("When does my dental cover begin?", output) == expected


@pytest.mark.parametrize(
    ("text", "output", "expected"),
    [
        ("Der Beitrag ist 1.500,50 Euro.", "Der Beitrag ist 1500,50 Euro.", ""),
        ("Der Beitrag ist 1.500 Euro.", "Der Beitrag ist 1.600 Euro.", "foreign_figure"),
        ("La prime est de 1\u202f500 euros.", "La prime est de 1500 euros.", ""),
        ("Cover starts on 01.03.2024.", "Cover starts on March 1, 2024.", ""),
        ("Cover starts on 01.03.2024.", "Cover starts on 01.04.2024.", "foreign_figure"),
        ("Twenty-five days of leave.", "25 days of leave.", ""),
        ("Twenty-five days of leave.", "26 days of leave.", "foreign_figure"),
    ],
)
def test_figures_may_be_written_in_other_ways(text: str, output: str, expected: str) -> None:
    """As dates, with the points and commas of the continent, and in words."""
    passage = Passage(id="p", title="", text=text)
    verdict = Grounded([passage]).check(record("How much?", output, "p"))
    assert (verdict.reason if verdict else "") == expected


def test_what_the_question_says_may_be_said_again() -> None:
    """Its words count neither way, and its figures are known."""
    question = "I joined 5 months ago and bought photosynthesis lamps. Am I covered?"
    assert reason(question, "No: after 5 months the waiting period is not over.") == ""
    assert reason(question, "Photosynthesis lamps are covered, bought or joined.") == ""


def test_a_question_may_not_name_the_passage() -> None:
    """In whole words, in any case, over line ends."""
    assert reason("What does The\nPassage say of cover?", "It begins.") == "names_passage"
    assert reason("Where is the passageway?", "Dental cover begins.") == ""
    assert reason("Did the text message come?", "Dental cover begins.") == ""
    assert reason("What begins, according to the text?", "Dental cover.") == "names_passage"
    assert reason("What says the passage?", "Dental cover.", references=[]) == ""
    assert reason("Was sagt der Abschnitt?", "Dental.", references=["der Abschnitt"]) == (
        "names_passage"
    )


def test_each_sign_can_be_switched_off() -> None:
    """By its own setting."""
    assert reason("When?", "After 6 months.", figures=False) == ""
    assert reason("What?", "Photosynthesis makes energy.", precision=0.0) == ""


def test_the_verdict_says_what_is_missing() -> None:
    """With the passage's id, and the share of words as score."""
    verdict = grounded().check(record("How much?", "We pay 1,750 euros for fillings."))
    assert verdict is not None
    assert verdict.detail == "1,750 is not in dental#1"
    assert verdict.score == 1.0
    verdict = grounded().check(record("How much?", "Chlorophyll absorbs violet euros."))
    assert verdict is not None
    assert verdict.detail == "0.25 of its words, under 0.3, are in dental#1"
    assert verdict.score == 0.25


def test_records_without_a_passage_are_passed_over() -> None:
    """Those of other strategies, and of documents that the run never had."""
    assert grounded().check(record("What?", "Photosynthesis in 1999.", "s1", "gone#2")) is None


def test_it_is_there_only_for_documents() -> None:
    """Other runs, and datasets, have no passages to hold answers against."""
    names = [one.name for one in build_filters(FiltersConfig(), passages=[PASSAGE])]
    assert names.index("grounded") == names.index("output") + 1
    assert "grounded" not in [one.name for one in build_filters(FiltersConfig())]
    off = FiltersConfig(grounded=GroundedConfig(enabled=False))
    assert "grounded" not in [one.name for one in build_filters(off, passages=[PASSAGE])]


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_looked_at(instruction: str, output: str) -> None:
    """And an answer that is the passage itself is always borne out."""
    grounded().check(record(instruction, output))
    own = Grounded([Passage(id="dental#1", text=output)], references=())
    assert own.check(record(instruction, output)) is None
