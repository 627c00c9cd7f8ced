"""Recipes: strict, overridable, and with errors that name the place and the nearest key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.recipe_file import load_recipe, override_recipe
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.core.shipped import shipped_root

MINIMAL = "seeds: [s.jsonl]\nteacher: {kind: scripted, model: replies.jsonl}\n"


def write(folder: Path, text: str) -> Path:
    """A recipe file with this text."""
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_name_defaults_to_the_files(tmp_path: Path) -> None:
    """A recipe without a name is called like its file."""
    assert load_recipe(write(tmp_path, MINIMAL)).name == "mine"


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    """--set reaches nested keys and list entries, with YAML values."""
    recipe = load_recipe(
        write(tmp_path, MINIMAL),
        [
            "generate.target=7",
            "seeds.0=other.jsonl",
            "filters.rouge.threshold=0.5",
            "privacy=local",
        ],
    )
    assert (recipe.generate.target, recipe.seeds[0].path) == (7, "other.jsonl")
    assert (recipe.filters.rouge.threshold, recipe.privacy) == (0.5, "local")
    assert override_recipe(recipe, ["generate.target=8"]).generate.target == 8
    changed = load_recipe(
        write(tmp_path, MINIMAL),
        ["seeds.0.limit=3", r"prices.gpt-4\.1.input=1", r"prices.gpt-4\.1.output=2"],
    )
    assert (changed.seeds[0].path, changed.seeds[0].limit) == ("s.jsonl", 3)
    assert list(changed.prices) == ["gpt-4.1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + "generate: {targt: 5}", "unknown key 'generate.targt'; did you mean 'target'?"),
        (MINIMAL + "teachr: {}", "unknown key 'teachr'; did you mean 'teacher'?"),
        (
            MINIMAL + "generate: {strategies: [{kind: alpaca, wieght: 1}]}",
            "unknown key 'generate.strategies.0.wieght'; did you mean 'weight'?",
        ),
        (MINIMAL + "zzz: 1", "unknown key 'zzz'; known are"),
        ("teacher: {kind: scripted, model: m}\n", "it names neither seeds nor documents"),
        (MINIMAL.replace("scripted", "magic"), "teacher.kind: input should be 'openai'"),
        (MINIMAL.replace("scripted", "compatible"), "a compatible teacher needs base_url"),
        (MINIMAL + "generate: {target: 0}", "generate.target: input should be greater"),
        ("seeds: []\nteacher: {kind: scripted, model: m}", "the recipe: it names neither seeds"),
        ("- a\n- b\n", "a recipe is a mapping of keys, this is a list"),
        ("", "a recipe is a mapping of keys, this is empty"),
        ("a: [1\nb: 2\n", "not YAML: "),
        (MINIMAL + "student: {method: lora}", "the key 'student.base' is missing"),
        (MINIMAL + "epochs: 2", "unknown key 'epochs'; did you mean 'student.epochs'?"),
    ],
)
def test_a_bad_recipe_is_explained_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    """The error names the file, the key and what to write instead."""
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ("epochs: 0", "epochs: input should be greater than 0, not 0"),
        (
            "max_length: 8",
            "max_length: input should be greater than or equal to 16, or 'auto', not 8",
        ),
        ("lora_targets: [5]", "lora_targets: input should be 'all-linear', or a valid string"),
    ],
)
def test_one_mistake_is_told_as_one(tmp_path: Path, student: str, says: str) -> None:
    """Not also for each kind that a value may have, nor for a default that waited for it."""
    path = write(tmp_path, MINIMAL + f"student: {{base: b, {student}}}")
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(error.value) == f"{path}: student.{says}"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("target", "write it as key=value"),
        ("seeds.5=x", "no position in a list of 1"),
        ("name.x=1", "'name' is a value"),
        ("generate.target=[", "the value is not YAML"),
        ("generate.targets=3", "did you mean 'target'?"),
    ],
)
def test_a_bad_override_is_explained(tmp_path: Path, override: str, says: str) -> None:
    """So does a --set that leads nowhere."""
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, MINIMAL), ["name=x", override])
    assert says in str(error.value)


def test_a_missing_recipe_says_how_to_get_one(tmp_path: Path) -> None:
    """A path that is not there points to `init`."""
    with pytest.raises(RecipeError, match="no such recipe; `selfinstruct init DIR`"):
        load_recipe(tmp_path / "none.yaml")


def test_a_misspelt_recipe_names_the_nearest() -> None:
    """Among those in its folder, the shipped ones too."""
    with pytest.raises(RecipeError, match=r"did you mean recipes/quickstart\.yaml\?"):
        load_recipe("recipes/quikstart.yaml")


@pytest.mark.parametrize(
    "path", sorted((shipped_root() / "recipes").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_shipped_recipes_are_valid(path: Path) -> None:
    """Every shipped recipe loads, and comes back the same from its resolved form."""
    recipe = load_recipe(path)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("student", "rate"),
    [
        ({}, 2e-4),
        ({"method": "qlora"}, 2e-4),
        ({"method": "full"}, 2e-5),
        ({"method": "full", "learning_rate": 1e-4}, 1e-4),
    ],
)
def test_the_learning_rate_follows_the_method_where_not_given(
    student: dict[str, Any], rate: float
) -> None:
    """All weights bear a tenth of what an adapter does; what a recipe says holds for any method."""
    assert StudentConfig(base="some-base", **student).learning_rate == rate


def test_the_learning_rate_follows_a_method_that_is_set_later() -> None:
    """Of a run too, whose resolved recipe has every key; a rate that was chosen stays."""
    recipe = Recipe.model_validate({"name": "x", "seeds": "a", "student": {"base": "b"}})
    resolved = Recipe.model_validate(recipe.model_dump(mode="json"))
    full = ["student.method=full"]
    for before in (recipe, resolved):
        after = override_recipe(before, full)
        assert after.student is not None
        assert after.student.learning_rate == 2e-5
    for rate in (1e-4, 2e-4):
        chosen = {"base": "b", "learning_rate": rate}
        given = Recipe.model_validate({"name": "x", "seeds": "a", "student": chosen})
        after = override_recipe(given, full)
        assert after.student is not None
        assert after.student.learning_rate == rate


def test_a_wrong_method_is_the_error_though_the_learning_rate_depends_on_it() -> None:
    """The default that asks for the method does not hide what is wrong with it."""
    with pytest.raises(ValidationError, match="method"):
        StudentConfig(base="some-base", method="lra")  # type: ignore[arg-type]
