"""Wording: Alpaca's own code as the measure, other languages, and errors in a rules file."""

from __future__ import annotations

import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.types import Candidate
from selfinstruct.steps.filters.wording import REASONS, Wording
from selfinstruct.steps.filters.wording_rules import KINDS, load_rules

ENGLISH = Wording(load_rules("recipes/filters/wording.en.yaml"))
GERMAN = Wording(load_rules("recipes/filters/wording.de.yaml"))
ALPACA_WORDS = re.split(
    ", ",
    "image, images, graph, graphs, picture, pictures, file, files, map, maps, draw, plot, go to, "
    "video, audio, music, flowchart, diagram",
)


def candidate(instruction: str) -> Candidate:
    return Candidate(id="c", slot=0, index=0, strategy="", instruction=instruction)


def reason(wording: Wording, instruction: str) -> str:
    verdict = wording.check(candidate(instruction))
    return verdict.reason if verdict else ""


def alpaca_rejects(instruction: str) -> bool:
    """The wording rules of Alpaca's `post_process_gpt3_response`."""
    words = (re.search(rf"\b({word})\b", instruction, re.IGNORECASE) for word in ALPACA_WORDS)
    return (
        any(words)
        or instruction.startswith("Write a program")
        or instruction[0] in string.punctuation
        or not instruction[0].isascii()
    )


OTHER = ["Write a program", "write a program", "imagery", "bitmap", "Draw", "MAP", "a", "go", "to"]
PIECES = st.sampled_from([*ALPACA_WORDS, *OTHER, *" -_'.éÜ2"])


@given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
def test_the_english_rules_reject_what_alpaca_rejects(instruction: str) -> None:
    """The shipped rules decide as Alpaca's code does, on its words in and next to other text."""
    instruction = instruction.strip() or "x"
    instruction = re.sub(" +", " ", instruction)
    assert bool(reason(ENGLISH, instruction)) == alpaca_rejects(instruction)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Describe the IMAGE below.", "forbidden_word"),
        ("Where would you go\nto relax?", "forbidden_word"),
        ("Imagine a bitmap.", ""),
        ("Write a program that adds", "forbidden_start"),
        ("Explain how to write a program", ""),
        ("  - List three things", "starts_with_punctuation"),
        ("Überlege dir etwas", "starts_with_non_ascii"),
        ("Name three colours", ""),
    ],
)
def test_english(instruction: str, expected: str) -> None:
    """Each rule gives its own reason; words are whole words in any case."""
    assert reason(ENGLISH, instruction) == expected


def test_the_detail_is_the_rules_own_and_names_what_was_found() -> None:
    """A reject can be understood without the rules file at hand."""
    verdict = ENGLISH.check(candidate("Look at the Graphs"))
    assert verdict is not None
    assert verdict.detail == "may ask for what a text model cannot see, open or make ('Graphs')"


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Überlege dir drei Gründe", ""),
        ("Beschreibe die Bilder", "forbidden_word"),
        ("Beschreibe die Bildung", ""),
        ("Schreibe ein Programm, das addiert", "forbidden_start"),
        ("... und dann?", "starts_with_punctuation"),
    ],
)
def test_german(instruction: str, expected: str) -> None:
    """The German rules leave umlauts at the start alone and know German words."""
    assert reason(GERMAN, instruction) == expected


def write(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_scripts_without_spaces_take_words_anywhere(tmp_path: Path) -> None:
    """`whole: false` finds a word inside others, as Chinese needs."""
    rules = "rules: [{kind: forbidden_word, words: [图片], whole: %s, detail: x}]"
    assert not reason(Wording(load_rules(write(tmp_path, rules % "true"))), "请描述图片内容")
    assert reason(Wording(load_rules(write(tmp_path, rules % "false"))), "请描述图片内容")


def test_a_mark_belongs_to_the_word(tmp_path: Path) -> None:
    """A combining mark after a listed word makes it another word (Hindi vowel signs)."""
    rules = load_rules(write(tmp_path, "rules: [{kind: forbidden_word, words: [चित्र], detail: x}]"))
    assert reason(Wording(rules), "यह चित्र देखो")
    assert not reason(Wording(rules), "यह चित्रा देखो")


def test_words_are_text_and_not_patterns(tmp_path: Path) -> None:
    """Characters that mean something in a regex stand for themselves."""
    rules = load_rules(
        write(tmp_path, "rules: [{kind: forbidden_word, words: ['c++', '(a|a)*$'], detail: x}]")
    )
    assert reason(Wording(rules), "Write C++ code")
    assert not reason(Wording(rules), "ccc aaaa")


def test_starts_in_any_case_where_the_rule_says_so(tmp_path: Path) -> None:
    """`any_case: true` takes a start however it is written; by default it is as written."""
    rules = "rules: [{kind: forbidden_start, starts: [Write CODE], any_case: %s, detail: x}]"
    assert not reason(Wording(load_rules(write(tmp_path, rules % "false"))), "write code")
    assert reason(Wording(load_rules(write(tmp_path, rules % "true"))), "write code")


def test_every_kind_has_its_reason() -> None:
    """The kinds of rules are the reasons this filter gives."""
    assert set(KINDS) == set(REASONS)


WORD_RULE = "rules:\n  - kind: forbidden_word\n    detail: x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file must be a mapping with the key rules"),
        ("rules: text", "rules must be a list"),
        ("rules: [3]", r"rules\[0\] must be a mapping with the keys kind and detail"),
        ("rules:\n  - [\n", r"rules.yaml:3: not YAML"),
        ("a: !!python/name:os.system ''", "not YAML: could not determine a constructor"),
        ("\x01", "not YAML: unacceptable character"),
        ("rule: []\nrules: []", "unknown key 'rule'; did you mean 'rules'"),
        (WORD_RULE, r"the key 'rules\[0\].words' is missing"),
        (WORD_RULE + "    words: []\n", r"rules\[0\].words is empty"),
        (WORD_RULE + "    words: [a, no]\n", r"rules\[0\].words\[1\] is False, not text; quote it"),
        (WORD_RULE + "    words: [' ']\n", r"rules\[0\].words\[0\] is empty"),
        (WORD_RULE + "    words: [a]\n    hole: true", r"'rules\[0\].hole'; did you mean 'whole'"),
        (WORD_RULE + "    words: [a]\n    zzzz: 1", r"known are kind, words, whole, detail"),
        (WORD_RULE + "    words: [a]\n    whole: 'no'", r"rules\[0\].whole is 'no'; write true or"),
        ("rules: [{words: [a]}]", r"rules\[0\].kind is missing; kinds are forbidden_word, "),
        ("rules: [{kind: regex}]", r"rules\[0\].kind: 'regex' is none of forbidden_word, "),
    ],
)
def test_a_bad_file_is_one_line_that_names_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    """Whatever is wrong with a rules file, the error says where and what is known there."""
    with pytest.raises(RecipeError, match=message) as caught:
        load_rules(write(tmp_path, text))
    assert "rules.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is not UTF-8 are errors of the recipe."""
    with pytest.raises(RecipeError, match=r"no\.yaml: no such rules file; set filters"):
        load_rules(tmp_path / "no.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_rules(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("rules: [] # für".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"not UTF-8 \(byte 13\)"):
        load_rules(tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["go " * 350_000, "image" * 200_000, "é" * 1_000_000])
def test_a_megabyte_is_quick(text: str) -> None:
    """Rules take time linear in the instruction."""
    begin = time.process_time()
    ENGLISH.check(candidate(text))
    GERMAN.check(candidate(text))
    assert time.process_time() - begin < 10
