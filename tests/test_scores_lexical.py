"""Scores that need no model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.types import SeedTask
from selfinstruct.steps.scores.lexical import (
    LEXICAL,
    mtld,
    reading_ease,
    sentences,
    type_token_ratio,
)


def test_sentences_are_counted() -> None:
    """A sentence ends at its mark or its line; abbreviations within words and blanks do not."""
    assert sentences("It is late. Go home! Why?") == 3
    assert sentences("One line\nanother one\n\n- and a third") == 3
    assert sentences("Version 2.5 is out") == 1
    assert sentences("...") == 0
    assert sentences("今日は暑い。泳ぎに行こう。") == 2


def test_variety_of_words() -> None:
    """The ratio falls with repeats; MTLD of all-different words is their number."""
    assert type_token_ratio("the cat saw the dog") == pytest.approx(0.8)
    assert type_token_ratio("!?") is None
    assert mtld("one two three four five six") == 6
    repeated, varied = mtld("very very very very very very"), mtld("a rare and quite varied text")
    assert repeated is not None
    assert varied is not None
    assert repeated < varied


def test_mtld_is_that_of_its_definition() -> None:
    """Worked by hand: two factors of two words each way, and what is left over counts partly."""
    # a a | b b | c: the ratio falls to 0.5 at each second word; the last word is all different.
    assert mtld("a a b b c") == pytest.approx((5 / 2 + 5 / 2) / 2)


def test_easy_text_reads_easier_than_hard_text() -> None:
    """Flesch's formula: short words and sentences score higher; no Latin word, no score."""
    easy = reading_ease("The cat sat on the mat. It was warm.")
    hard = reading_ease("Institutional considerations necessitate comprehensive deliberation.")
    assert easy is not None
    assert hard is not None
    assert easy > 90 > 0 > hard
    assert reading_ease("12 + 30") is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_has_a_score_or_none(instruction: str, output: str) -> None:
    """Lone surrogates, no words, any script: a number or None, never an error."""
    task = SeedTask(id="x", instruction=instruction, output=output)
    for score in LEXICAL.values():
        value = score(task)
        assert value is None or value == value  # no NaN
