"""The rules of the wording filter: a YAML file, checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from selfinstruct.steps.filters.rules_file import Form, Place, StrictRules, load_file

Text = Annotated[str, Field(strict=True, pattern=r"\S")]


class ForbiddenWords(StrictRules):
    """Words or phrases anywhere in the instruction, in any case."""

    kind: Literal["forbidden_word"]
    words: list[Text] = Field(min_length=1)
    whole: bool = Field(default=True, strict=True)
    """Only as whole words. False for languages without spaces between words."""
    detail: Text


class ForbiddenStarts(StrictRules):
    """Beginnings of the instruction, as written; a longer last word that begins so counts too."""

    kind: Literal["forbidden_start"]
    starts: list[Text] = Field(min_length=1)
    any_case: bool = Field(default=False, strict=True)
    detail: Text


class FirstCharacter(StrictRules):
    """Instructions that start with ASCII punctuation, or with a character outside ASCII."""

    kind: Literal["starts_with_punctuation", "starts_with_non_ascii"]
    detail: Text


Rule = ForbiddenWords | ForbiddenStarts | FirstCharacter
KINDS: dict[str, type[Rule]] = {
    "forbidden_word": ForbiddenWords,
    "forbidden_start": ForbiddenStarts,
    "starts_with_punctuation": FirstCharacter,
    "starts_with_non_ascii": FirstCharacter,
}


class WordingRules(StrictRules):
    """A rules file: rules in the order they are tried."""

    rules: list[Annotated[Rule, Field(discriminator="kind")]]


def _model_at(place: Place, loaded: Any) -> type[StrictRules]:
    return WordingRules if len(place) == 1 else KINDS[loaded["rules"][place[1]]["kind"]]


_FORM = Form(WordingRules, "filters.wording.rules", ("kind", "detail"), KINDS, _model_at)


def load_rules(path: str | Path) -> WordingRules:
    """The rules of a YAML file, of the project or shipped.

    Raises:
        RecipeError: the file is missing, no YAML, or a key of it is wrong; the message names it.
    """
    return load_file(path, _FORM)
