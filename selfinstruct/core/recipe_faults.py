"""What is wrong with a recipe, in one line: the place, and the nearest known key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.recipe import Recipe


def recipe_error(error: ValidationError, source: str) -> RecipeError:
    """The error to raise for a section or recipe, read from `source`, that is none."""
    problems = [_explain(dict(problem)) for problem in error.errors()]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return RecipeError(f"{source}: {problems[0]}{more}")


def _explain(problem: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    name = ".".join(place) or "the recipe"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
        return f"unknown key {name!r}; {hint}"
    if problem["type"] == "missing":
        return f"the key {name!r} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    shown = "" if isinstance(given, (dict, list)) else f", not {given!r}"
    return f"{name}: {message[:1].lower()}{message[1:]}{shown}"


def _known_keys(place: Sequence[str]) -> list[str]:
    """The fields of the recipe's section at `place`."""
    model: type[BaseModel] | None = Recipe
    for part in place:
        if part.isdigit() or model is None:
            continue
        field = model.model_fields.get(part)
        model = _model_in(field.annotation) if field is not None else None
    return list(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section's model in a field's annotation: itself, in a list, a dict or an option."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, dict, typing.Union, types.UnionType):
        for inner in typing.get_args(annotation):
            found = _model_in(inner)
            if found is not None:
                return found
    return None
