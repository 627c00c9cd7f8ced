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
    problems = [_explain(problem) for problem in _told(error)]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return RecipeError(f"{source}: {problems[0]}{more}")


def _told(error: ValidationError) -> list[dict[str, Any]]:
    """The faults that a person made, one for each place.

    A default that could not be worked out is none, and a value that may be of several kinds is one
    fault, not one for each kind.
    """
    told: list[dict[str, Any]] = []
    for found in error.errors():
        problem, place = dict(found), [str(part) for part in found["loc"]]
        if problem["type"] == "default_factory_not_called":
            continue
        ends = (end for end in range(1, len(place)) if _has_kinds(place[:end]))
        problem["loc"] = found["loc"][: next(ends, len(place))]
        if told and told[-1]["loc"] == problem["loc"]:
            other = str(problem["msg"]).removeprefix("Input should be ")
            told[-1]["msg"] += f", or {other}"
        else:
            told.append(problem)
    return told


def _explain(problem: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    name = ".".join(place) or "the recipe"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        near = _keys_of_sections(place) or near
        meant = " or ".join(map(repr, near))
        hint = f"did you mean {meant}?" if near else f"known are {', '.join(sorted(known))}"
        return f"unknown key {name!r}; {hint}"
    if problem["type"] == "missing":
        return f"the key {name!r} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    shown = "" if isinstance(given, (dict, list)) else f", not {given!r}"
    return f"{name}: {message[:1].lower()}{message[1:]}{shown}"


def _keys_of_sections(place: Sequence[str]) -> list[str]:
    """Where a key that was given at the top may belong, such as ``student.epochs``."""
    if len(place) > 1:
        return []
    return [f"{name}.{place[0]}" for name in Recipe.model_fields if place[0] in _known_keys([name])]


def _has_kinds(place: Sequence[str]) -> bool:
    """Whether the key at `place` takes values of several kinds, such as a number or a word."""
    model = _section(place[:-1])
    field = model.model_fields.get(place[-1]) if model is not None else None
    kinds = (typing.Union, types.UnionType)
    return (
        field is not None
        and typing.get_origin(field.annotation) in kinds
        and _model_in(field.annotation) is None
    )


def _known_keys(place: Sequence[str]) -> list[str]:
    """The fields of the recipe's section at `place`."""
    model = _section(place)
    return list(model.model_fields) if model is not None else []


def _section(place: Sequence[str]) -> type[BaseModel] | None:
    """The model of the recipe's section at `place`, None where there is none."""
    model: type[BaseModel] | None = Recipe
    for part in place:
        if part.isdigit() or model is None:
            continue
        field = model.model_fields.get(part)
        model = _model_in(field.annotation) if field is not None else None
    return model


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
