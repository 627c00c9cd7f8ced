"""Prompt files: a header, roles, named places, and nothing that executes."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.types import Message
from selfinstruct.steps.prompts import load_prompt
from selfinstruct.steps.strategies import alpaca, documents, json_task, magpie, self_instruct


def write(folder: Path, text: str) -> Path:
    """A prompt file with this text."""
    path = folder / "p.txt"
    path.write_text(text, "utf-8")
    return path


def test_roles_and_places(tmp_path: Path) -> None:
    """Sections become messages, and places take their values."""
    path = write(
        tmp_path, "---\nname: p\nversion: 3\n---\n[system]\nBe {{how}}.\n[user]\n{{what}}\n"
    )
    prompt = load_prompt(path, frozenset({"how", "what"}))
    assert prompt.render(how="brief", what="Hi") == (
        Message("system", "Be brief."),
        Message("user", "Hi"),
    )
    assert prompt.tag.startswith("p@3-")


def test_a_body_without_roles_is_a_user_message(tmp_path: Path) -> None:
    """The simplest prompt file is a header and text."""
    prompt = load_prompt(
        write(tmp_path, "---\nname: p\nversion: 1\n---\nJust {{this}}.\n"), frozenset({"this"})
    )
    assert prompt.render(this="that") == (Message("user", "Just that."),)


def test_values_are_not_expanded_again(tmp_path: Path) -> None:
    """A value that looks like a place or like code stays text."""
    prompt = load_prompt(
        write(tmp_path, "---\nname: p\nversion: 1\n---\n{{a}} {{b}}"), frozenset({"a", "b"})
    )
    rendered = prompt.render(a="{{b}}", b="{{ ().__class__ }} {0} %s ${x}")
    assert rendered[0].content == "{{b}} {{ ().__class__ }} {0} %s ${x}"


def test_the_text_is_part_of_the_version(tmp_path: Path) -> None:
    """An edit without a new version number still changes the tag."""
    first = load_prompt(write(tmp_path, "---\nname: p\nversion: 1\n---\none"), frozenset())
    second = load_prompt(write(tmp_path, "---\nname: p\nversion: 1\n---\ntwo"), frozenset())
    assert first.tag != second.tag


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no header", ":1: a prompt file begins with a header"),
        ("---\nname: p\n---\nx", "the header needs 'name' and 'version'"),
        ("---\nname: [\n---\nx", "the header is not YAML"),
        ("---\nname: p\nversion: 1\n---\n{{a}} {{b}}", "unknown {{b}}; this prompt takes {{a}}"),
        ("---\nname: p\nversion: 1\n---\nnothing", "missing {{a}}"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    """The error names the file and what is wrong in one line."""
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as error:
        load_prompt(path, frozenset({"a"}))
    assert str(path) in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("path", "places"),
    [
        (alpaca.PROMPT, alpaca.PLACES),
        (self_instruct.PROMPT, self_instruct.PLACES),
        (self_instruct.ANSWER_PROMPT, self_instruct.ANSWER_PLACES),
        (json_task.PROMPT, json_task.PLACES),
        (magpie.PROMPT, magpie.PLACES),
        (documents.PROMPT, documents.PLACES),
    ],
)
def test_the_shipped_prompts_are_valid(path: str, places: frozenset[str]) -> None:
    """Every shipped prompt has exactly the places its strategy fills."""
    assert load_prompt(path, places).places == places


PLACES = {
    alpaca.PROMPT: alpaca.PLACES,
    self_instruct.PROMPT: self_instruct.PLACES,
    self_instruct.ANSWER_PROMPT: self_instruct.ANSWER_PLACES,
    json_task.PROMPT: json_task.PLACES,
    documents.PROMPT: documents.PLACES,
}


@pytest.mark.parametrize("path", PLACES)
def test_the_stable_part_comes_first(path: str) -> None:
    """Providers cache beginnings: what is the same for all calls goes before what changes."""
    prompt = load_prompt(path, PLACES[path])
    one, other = (
        "\n".join(m.content for m in prompt.render(**dict.fromkeys(PLACES[path], value)))
        for value in ("\x01", "\x02")
    )
    first, last = one.index("\x01"), one.rindex("\x01")
    assert one[:first] == other[:first]
    assert first > len(one[last:])
