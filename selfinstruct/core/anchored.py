"""Paths of a recipe, made to hold from any folder before they are stored with a run."""

from __future__ import annotations

import os
from pathlib import Path

from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.student import StudentConfig


def anchored(recipe: Recipe) -> Recipe:
    """`recipe` with the whole paths of what its student is made of.

    That is the base, the chat template and the student's own data, and without a teacher the seeds,
    which then are the dataset. What is not there as a path stays as it is: a Hub id, a known name,
    a shipped file.
    """
    changed = {}
    if recipe.teacher is None:
        changed["seeds"] = [
            one.model_copy(update={"path": whole_path(one.path)}) for one in recipe.seeds
        ]
    student = None if recipe.student is None else _student(recipe.student)
    return recipe.model_copy(update={**changed, **({"student": student} if student else {})})


def _student(student: StudentConfig) -> StudentConfig:
    changed: dict[str, object] = {"base": whole_path(student.base)}
    for key in ("conversations", "chat_template"):
        if (path := getattr(student, key)) is not None:
            changed[key] = whole_path(path)
    if (later := student.distillation) is not None:
        teacher = whole_path(later.teacher)
        changed["distillation"] = later.model_copy(update={"teacher": teacher})
    if (pairs := student.preference) is not None:
        changed["preference"] = pairs.model_copy(update={"data": whole_path(pairs.data)})
    return student.model_copy(update=changed)


def whole_path(path: str) -> str:
    """`path` from the root, without dots in it; as it is where there is no such file or folder."""
    given = Path(path).expanduser()
    if not given.exists():
        return path
    whole = given.absolute()
    plain = Path(os.path.normpath(whole))
    # Past a link to a folder, ".." is not what the text says.
    return str(plain if plain.exists() and plain.samefile(whole) else whole)
