"""Grow a few examples or documents into an instruction dataset and a small student of your own.

The Python interface is `selfinstruct.Run` and the functions beside it; the command line is
``selfinstruct`` or ``python -m selfinstruct``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Passage",
    "Recipe",
    "Record",
    "Run",
    "SeedTask",
    "SelfInstructError",
    "evaluate",
    "filter",
    "filter_file",
    "generate",
    "load_recipe",
    "select_dataset",
    "train_student",
]

if TYPE_CHECKING:
    from selfinstruct.api import Run, evaluate, generate, select_dataset, train_student
    from selfinstruct.core.errors import SelfInstructError
    from selfinstruct.core.recipe import Recipe
    from selfinstruct.core.recipe_file import load_recipe
    from selfinstruct.core.types import Passage, Record, SeedTask
    from selfinstruct.stages.filter import filter, filter_file  # noqa: A004 (the word users know)

_HOMES = {
    "Passage": "selfinstruct.core.types",
    "Recipe": "selfinstruct.core.recipe",
    "Record": "selfinstruct.core.types",
    "Run": "selfinstruct.api",
    "SeedTask": "selfinstruct.core.types",
    "SelfInstructError": "selfinstruct.core.errors",
    "evaluate": "selfinstruct.api",
    "filter": "selfinstruct.stages.filter",
    "filter_file": "selfinstruct.stages.filter",
    "generate": "selfinstruct.api",
    "load_recipe": "selfinstruct.core.recipe_file",
    "select_dataset": "selfinstruct.api",
    "train_student": "selfinstruct.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``--help`` stays quick."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'selfinstruct' has no attribute {name!r}")
