"""Reading a recipe: from YAML, from Python or in part, with overrides."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from selfinstruct.core.anchored import whole_path
from selfinstruct.core.errors import RecipeError
from selfinstruct.core.overrides import apply_override
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.recipe_faults import recipe_error
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.sections.strict import Strict
from selfinstruct.core.sections.student import usual_rate
from selfinstruct.core.shipped import find

ANY_DATASET = "any"
PRESETS = {name: f"recipes/filters/{name}.yaml" for name in (ANY_DATASET, "alpaca")}
"""Filters for datasets that ship under a name, and their files."""

RecipeLike = Recipe | dict[str, Any] | str | Path
"""A recipe, a mapping, or the path of a YAML file."""


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
        near = _nearest(Path(path))
        hint = f"did you mean {near}?" if near else "`selfinstruct init DIR` writes one"
        raise RecipeError(f"{path}: no such recipe; {hint}")
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


def _nearest(path: Path) -> Path | None:
    """The recipe in the folder of `path`, shipped ones too, that is named most like it."""
    folder = find(path.parent)
    names = [one.name for one in folder.glob("*.yaml")] if folder and folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return path.with_name(near[0]) if near else None


def check_recipe(loaded: dict[str, Any], source: str) -> Recipe:
    """`loaded` as a checked recipe. Raises `RecipeError` naming `source` and the key."""
    try:
        return Recipe.model_validate(loaded)
    except ValidationError as error:
        raise recipe_error(error, source) from None


def _yaml_place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    return f"{place}: not YAML: {problem}"


def _kind(value: Any) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"


def override_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """`recipe` with ``a.b=value`` settings changed. Raises `RecipeError`."""
    if not overrides:
        return recipe
    loaded = _changeable(recipe)
    for override in overrides:
        apply_override(loaded, override)
    return check_recipe(loaded, "--set")


def _changeable(recipe: Recipe, *, exclude_unset: bool = False) -> dict[str, Any]:
    """`recipe` as a mapping, without a learning rate that is to follow the method.

    A run's resolved recipe, which gives every key, does not tell whether the rate was chosen: the
    usual one of its method then counts as not.
    """
    loaded = recipe.model_dump(mode="json", exclude_unset=exclude_unset)
    if (student := recipe.student) is not None:
        given = student.model_fields_set
        usual = student.learning_rate == usual_rate({"method": student.method})
        resolved = given == type(student).model_fields.keys()
        if "learning_rate" not in given or (resolved and usual):
            loaded["student"].pop("learning_rate", None)
    return loaded


def given_recipe(recipe: RecipeLike, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe, in whatever form it is given, with ``a.b=value`` overrides.

    Raises `RecipeError`.
    """
    if isinstance(recipe, (str, Path)):
        return load_recipe(recipe, overrides)
    if isinstance(recipe, dict):
        recipe = check_recipe(recipe, "recipe")
    return override_recipe(recipe, overrides)


def selection_recipe(
    data: str | Path, recipe: RecipeLike | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe of a selection from the dataset at `data`: a section `select` alone is enough.

    Raises `RecipeError` where nothing says what to select.
    """
    if recipe is None or isinstance(recipe, dict):
        whole = {"name": "selection", "seeds": [str(data)]} | (recipe or {})
        whole = copy.deepcopy(whole)  # an override changes it in place
        for override in overrides:
            apply_override(whole, override)
        found = check_recipe(whole, "settings")
    else:
        found = given_recipe(recipe, overrides)
    if found.select is None:
        raise RecipeError(
            "nothing says what to select: give --method random --count 1000, or a recipe with a "
            "section select"
        )
    return found


def data_recipe(
    data: Sequence[str | Path], run: Path, recipe: RecipeLike | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe of a student on `data`, in the folder `run`: `recipe` but for who writes.

    Where a source of `recipe` is private, so is `data`; the limit of one that is the same file or
    folder holds on. Raises `RecipeError`.
    """
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe)
    if isinstance(recipe, Recipe):
        recipe = _changeable(recipe, exclude_unset=True)
    whole = copy.deepcopy(recipe or {})  # an override changes it in place
    for writer in ("teacher", "answer_teacher"):
        whole.pop(writer, None)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run.resolve().name).lstrip("._-") or "student"
    before, documents = (_listed(whole.pop(key, None)) for key in ("seeds", "documents"))
    private = any(one.get("private") for one in (*before, *documents))
    limits = {whole_path(str(one.get("path"))): one.get("limit") for one in before}
    seeds = [
        {"path": str(one), "private": private, "limit": limits.get(whole_path(str(one)))}
        for one in data
    ]
    whole |= {"name": name, "seeds": seeds}
    for override in overrides:
        apply_override(whole, override)
    return check_recipe(whole, "settings")


def _listed(given: Any) -> list[dict[str, Any]]:
    """The sources of a recipe that are more than a path."""
    sources = given if isinstance(given, list) else [given]
    return [one for one in sources if isinstance(one, dict)]


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
        raise recipe_error(error, source) from None


class _FiltersAlone(Strict):
    """The section `filters` under its name, so that errors give whole keys."""

    filters: FiltersConfig
