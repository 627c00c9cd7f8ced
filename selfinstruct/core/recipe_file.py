"""Reading a recipe: YAML, overrides, and errors that name the place and the nearest known key."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.sections.strict import Strict
from selfinstruct.core.shipped import find

ANY_DATASET = "any"
PRESETS = {name: f"recipes/filters/{name}.yaml" for name in (ANY_DATASET, "alpaca")}
"""Filters for datasets that ship under a name, and their files."""

_DOT = re.compile(r"(?<!\\)\.")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path`, with ``a.b=value`` overrides applied before it is checked.

    The run's name is the file's where the recipe gives none. Raises `RecipeError` in one line.
    """
    loaded = _load_yaml(path)
    loaded.setdefault("name", Path(path).stem)
    for override in overrides:
        apply_override(loaded, override)
    return check_recipe(loaded, str(path))


def _load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `RecipeError`."""
    found = find(path)
    if found is None:
        raise RecipeError(f"{path}: no such recipe; `selfinstruct init DIR` writes one")
    try:
        loaded = yaml.safe_load(found.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}{_yaml_place(error)}") from None
    if not isinstance(loaded, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys, this is {_kind(loaded)}")
    return loaded


def check_recipe(loaded: dict[str, Any], source: str) -> Recipe:
    """`loaded` as a checked recipe. Raises `RecipeError` naming `source` and the key."""
    try:
        return Recipe.model_validate(loaded)
    except ValidationError as error:
        raise _error(error, source) from None


def _error(error: ValidationError, source: str) -> RecipeError:
    problems = [_explain(dict(problem)) for problem in error.errors()]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return RecipeError(f"{source}: {problems[0]}{more}")


def load_filters(path: str | Path | None = None, overrides: Sequence[str] = ()) -> FiltersConfig:
    """The filters of a file, with ``filters.a.b=value`` overrides; those for any dataset without.

    The file is a recipe, of which the section `filters` counts, or that section alone; or one of
    `PRESETS` by name. Raises `RecipeError`.
    """
    loaded = _load_yaml(PRESETS.get(str(path or ANY_DATASET), path or ""))
    section = loaded.get("filters", {}) if {"filters", "seeds"} & loaded.keys() else loaded
    whole = {"filters": section or {}}
    for override in overrides:
        if not override.startswith("filters."):
            raise RecipeError(f"--set {override}: only filters.* can be set here")
        apply_override(whole, override)
    return check_filters(whole["filters"], "--set" if path is None else str(path))


def check_filters(section: Any, source: str) -> FiltersConfig:
    """`section` as checked filters. Raises `RecipeError` naming `source` and the key."""
    try:
        return _FiltersAlone.model_validate({"filters": section}).filters
    except ValidationError as error:
        raise _error(error, source) from None


class _FiltersAlone(Strict):
    """The section `filters` under its name, so that errors give whole keys."""

    filters: FiltersConfig


def apply_override(loaded: dict[str, Any], override: str) -> None:
    """Set one value in place. Raises `RecipeError`.

    ``seeds.0.path=x.jsonl`` reaches into lists; a dot within a key is written ``\\.``, as in
    ``prices.gpt-4\\.1-mini.input=0.4``.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override}: write it as key=value, such as generate.target=200")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is not YAML") from None
    at: Any = loaded
    *path, last = (part.replace("\\.", ".") for part in _DOT.split(key))
    for part in path:
        if isinstance(at, list):
            position = _index(part, at, override)
            if isinstance(at[position], str) and path[0] == "seeds":
                at[position] = {"path": at[position]}  # a source may be written as its path
            at = at[position]
        elif isinstance(at, dict):
            if at.get(part) is None:
                at[part] = {}
            at = at[part]
        if not isinstance(at, (dict, list)):
            raise RecipeError(f"--set {override}: {part!r} is a value, it has no keys")
    if isinstance(at, list):
        at[_index(last, at, override)] = value
    else:
        at[last] = value


def _index(part: str, items: list[Any], override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise RecipeError(f"--set {override}: {part!r} is no position in a list of {len(items)}")
    return int(part)


def _yaml_place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    return f"{place}: not YAML: {problem}"


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


def _kind(value: Any) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"


def override_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """`recipe` with ``a.b=value`` settings changed. Raises `RecipeError`."""
    if not overrides:
        return recipe
    loaded = recipe.model_dump(mode="json")
    for override in overrides:
        apply_override(loaded, override)
    return check_recipe(loaded, "--set")
