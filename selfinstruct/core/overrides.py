"""Settings given beside a recipe, as ``a.b=value``."""

from __future__ import annotations

import re
from typing import Any

import yaml

from selfinstruct.core.errors import RecipeError

_DOT = re.compile(r"(?<!\\)\.")


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
