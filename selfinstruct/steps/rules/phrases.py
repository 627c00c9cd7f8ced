"""Rules that are lists of words and phrases: a YAML file that a user edits, one a language.

    rules:
      - rule: ai_boilerplate
        part: output
        words: [as an ai language model, as a language model]
        unless: [chatbot]

They are plain text, never patterns, so the time is linear in the record.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from selfinstruct.steps.filters.rules_file import Form, Place, StrictRules, load_file
from selfinstruct.steps.rules.view import PARTS, Part, Rule, View, fold, quoted

PhraseRuleName = Literal[
    "impossible_task",
    "missing_input",
    "unseen_source",
    "no_input",
    "no_output",
    "refusal",
    "placeholder",
    "unfinished",
    "toxic_words",
]
NAMES: tuple[str, ...] = get_args(PhraseRuleName)
Text = Annotated[str, Field(strict=True, pattern=r"\S")]


class PhraseRule(StrictRules):
    """Words or phrases, in any case, in one part of a record."""

    rule: PhraseRuleName
    """The rule they belong to; several entries may belong to one."""
    part: Part | Literal["any"]
    """Where to look: `instruction`, `input`, `output`, or `any` of them."""
    place: Literal["anywhere", "start", "end", "whole"] = "anywhere"
    """`whole`: the part is nothing but the phrase and punctuation around it."""
    words: list[Text] = Field(min_length=1)
    within_words: bool = Field(default=False, strict=True)
    """Also inside longer words. True for languages without spaces between words."""
    unless: list[Text] = Field(default_factory=list)
    """Words of instruction or input that make it right after all."""


class PhraseRules(StrictRules):
    """A file of phrases."""

    rules: list[PhraseRule]


def _model_at(place: Place, loaded: Any) -> type[StrictRules]:
    return PhraseRules if len(place) == 1 else PhraseRule


_FORM = Form(PhraseRules, "filters.rules.phrases", ("rule", "words"), NAMES, _model_at)


def load_phrases(path: str | Path) -> PhraseRules:
    """The phrases of a YAML file, of the project or shipped.

    Raises:
        RecipeError: the file is missing, no YAML, or a key of it is wrong; the message names it.
    """
    return load_file(path, _FORM)


def phrase_rule(entries: list[PhraseRule]) -> Rule:
    """One rule out of its entries: the first phrase that is found."""
    finders = [(entry, _finder(entry), _finder(_exceptions(entry))) for entry in entries]

    def look(view: View) -> str:
        for entry, find, excuse in finders:
            # One look spares three; a beginning or an end is that of a part, not of the whole.
            if entry.part == "any" and entry.place == "anywhere" and not find(view.whole):
                continue
            for part in PARTS if entry.part == "any" else (entry.part,):
                found = find(view.folded[part])
                if found and not (
                    excuse(view.folded["instruction"]) or excuse(view.folded["input"])
                ):
                    return f"{quoted(found)} in the {part}"
        return ""

    return look


def _exceptions(entry: PhraseRule) -> PhraseRule:
    return entry.model_copy(update={"words": entry.unless, "place": "anywhere"})


def _finder(entry: PhraseRule) -> Callable[[str], str]:
    """The first of an entry's phrases in a folded text; "" for none.

    A search for plain text costs a tenth of a pattern with as many branches.
    """
    phrases = [fold(word) for word in entry.words]
    if entry.place == "whole":
        bare = {_bare(phrase): phrase for phrase in phrases}
        longest = max(map(len, phrases), default=0) + 20
        return lambda text: bare.get(_bare(text), "") if len(text) <= longest else ""

    def find(text: str) -> str:
        if not text:
            return ""
        whole, bare = text, text.lstrip(_EDGES) if entry.place == "start" else text
        for phrase in phrases:
            text = whole if phrase[0] in _EDGES else bare
            at = _first(text, phrase, entry.place)
            while at >= 0:
                end = at + len(phrase)
                if entry.within_words or _alone(text, phrase, at, end):
                    return phrase
                at = text.find(phrase, at + 1) if entry.place == "anywhere" else -1
        return ""

    return find


_EDGES = " .,;:!?\"'`()[]{}<>*-_#/\\"


def _bare(text: str) -> str:
    return text.strip(_EDGES).replace(" ", "")


def _first(text: str, phrase: str, place: str) -> int:
    """Where the phrase stands first at its place, or -1. An end is one without punctuation."""
    if place == "start":
        return 0 if text.startswith(phrase) else -1
    if place == "end":
        return len(text) - len(phrase) if text.endswith(phrase) else -1
    return text.find(phrase)


def _alone(text: str, phrase: str, at: int, end: int) -> bool:
    """Whether the phrase ends where words end; a phrase's own punctuation is such an end."""
    before = at > 0 and phrase[0].isalnum() and _inner(text[at - 1])
    after = end < len(text) and phrase[-1].isalnum() and _inner(text[end])
    return not (before or after)


def _inner(character: str) -> bool:
    return character.isalnum() or character == "_"
