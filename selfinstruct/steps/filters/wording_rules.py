"""The rules of the wording filter: a YAML file, checked before anything runs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.shipped import find

Text = Annotated[str, Field(strict=True, pattern=r"\S")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ForbiddenWords(_Strict):
    """Words or phrases anywhere in the instruction, in any case."""

    kind: Literal["forbidden_word"]
    words: list[Text] = Field(min_length=1)
    whole: bool = Field(default=True, strict=True)
    """Only as whole words. False for languages without spaces between words."""
    detail: Text


class ForbiddenStarts(_Strict):
    """Beginnings of the instruction, as written; a longer last word that begins so counts too."""

    kind: Literal["forbidden_start"]
    starts: list[Text] = Field(min_length=1)
    any_case: bool = Field(default=False, strict=True)
    detail: Text


class FirstCharacter(_Strict):
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


class WordingRules(_Strict):
    """A rules file: rules in the order they are tried."""

    rules: list[Annotated[Rule, Field(discriminator="kind")]]


def load_rules(path: str | Path) -> WordingRules:
    """The rules of a YAML file, of the project or shipped.

    Raises:
        RecipeError: the file is missing, no YAML, or a key of it is wrong; the message names it.
    """
    found = find(path)
    if found is None:
        raise RecipeError(f"{path}: no such rules file; set filters.wording.rules to one")
    try:
        loaded: Any = yaml.safe_load(found.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{path}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return WordingRules.model_validate(loaded)
    except ValidationError as error:
        problems = [_explain(dict(problem), loaded) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RecipeError(f"{path}: {problems[0]}{more}") from None


def _explain(problem: dict[str, Any], loaded: Any) -> str:
    """One problem with its place, such as ``rules[0].words[3]``, in words."""
    # Under a rule, pydantic puts the rule's kind into the place; it is no key of the file.
    place = [part for at, part in enumerate(problem["loc"]) if not (at == 2 and part in KINDS)]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    name = name.lstrip(".") or "the file"
    given = problem["input"]
    match problem["type"]:
        case "union_tag_not_found":
            return f"{name}.kind is missing; kinds are {', '.join(KINDS)}"
        case "union_tag_invalid":
            return f"{name}.kind: {given['kind']!r} is none of {', '.join(KINDS)}"
        case "extra_forbidden":
            return f"unknown key {name!r}; {_known(problem['loc'], str(place[-1]), loaded)}"
        case "missing":
            return f"the key {name!r} is missing"
        case "string_pattern_mismatch":
            return f"{name} is empty"
        case "too_short":
            return f"{name} is empty; list at least one, or leave the rule out"
        case "string_type" if isinstance(given, bool | int | float):
            return f"{name} is {given!r}, not text; quote it (bare no and on are values in YAML)"
        case "bool_type":
            return f"{name} is {given!r}; write true or false"
        case "list_type":
            return f"{name} must be a list"
        case "model_type" | "model_attributes_type":
            keys = "keys kind and detail" if place else "key rules"
            return f"{name} must be a mapping with the {keys}"
    return f"{name}: {problem['msg']}"


def _known(loc: tuple[str | int, ...], key: str, loaded: Any) -> str:
    """The key that was probably meant, or all there are at this place."""
    model = WordingRules if len(loc) == 1 else KINDS[loaded["rules"][loc[1]]["kind"]]
    known = list(model.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
