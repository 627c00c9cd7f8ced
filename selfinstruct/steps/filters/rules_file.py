"""Files of rules that a user edits: YAML, checked by a strict model before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.shipped import find

Place = tuple[str | int, ...]


class StrictRules(BaseModel):
    """A part of a rules file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=StrictRules)


class Form(NamedTuple, Generic[Model]):
    """What a file of rules looks like, for its errors.

    `setting` is the recipe's key that names the file, `keys` a rule's two most important ones (the
    first says what it is, one of `kinds`), `model_at` the model of the mapping at a place.
    """

    model: type[Model]
    setting: str
    keys: tuple[str, str]
    kinds: Collection[str]
    model_at: Callable[[Place, Any], type[StrictRules]]


def load_file(path: str | Path, form: Form[Model]) -> Model:
    """The rules of a YAML file, of the project or shipped.

    Raises:
        RecipeError: the file is missing, no YAML, or a key of it is wrong; the message names it.
    """
    found = find(path)
    if found is None:
        raise RecipeError(f"{path}: no such rules file; set {form.setting} to one")
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
        return form.model.model_validate(loaded)
    except ValidationError as error:
        problems = [_explain(dict(problem), loaded, form) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RecipeError(f"{path}: {problems[0]}{more}") from None


def _explain(problem: dict[str, Any], loaded: Any, form: Form[Model]) -> str:
    """One problem with its place, such as ``rules[0].words[3]``, in words."""
    # Under a rule of a tagged union, pydantic puts the tag into the place; it is no key there.
    place = [part for at, part in enumerate(problem["loc"]) if not (at == 2 and part in form.kinds)]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    name = name.lstrip(".") or "the file"
    given, tag = problem["input"], form.keys[0]
    match problem["type"]:
        case "union_tag_not_found":
            return f"{name}.{tag} is missing; kinds are {', '.join(form.kinds)}"
        case "union_tag_invalid":
            return f"{name}.{tag}: {given[tag]!r} is none of {', '.join(form.kinds)}"
        case "literal_error":
            return f"{name}: {given!r} is none of {problem['ctx']['expected']}"
        case "extra_forbidden":
            known = list(form.model_at(problem["loc"], loaded).model_fields)
            return f"unknown key {name!r}; {_nearest(str(place[-1]), known)}"
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
            keys = f"keys {' and '.join(form.keys)}" if place else "key rules"
            return f"{name} must be a mapping with the {keys}"
    return f"{name}: {problem['msg']}"


def _nearest(key: str, known: list[str]) -> str:
    """The key that was probably meant, or all there are at this place."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
