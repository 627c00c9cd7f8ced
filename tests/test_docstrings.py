"""Docstrings say what is there: arguments that exist, and modules and names that can be found."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import selfinstruct

PACKAGE = Path(selfinstruct.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = {part for name in MODULES for part in name.split(".")[:-1]}
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def documented(path: Path) -> Iterator[Documented]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Documented) and "Args:" in (ast.get_docstring(node) or ""):
            yield node


def described(node: Documented) -> list[str]:
    """The arguments that a docstring explains."""
    after = (ast.get_docstring(node) or "").split("Args:\n", 1)[1].split("\n\n")[0]
    found = re.findall(r"^    (\w+(?:, \w+)*): ", after, re.MULTILINE)
    return [name for names in found for name in names.split(", ")]


def taken(node: Documented) -> set[str]:
    """The parameters of a function, or of what makes a class."""
    if isinstance(node, ast.ClassDef):
        own = (one for one in node.body if isinstance(one, ast.FunctionDef))
        init = next((one for one in own if one.name == "__init__"), None)
        if init is not None:
            return taken(init)
        fields = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
        return {one.id for one in fields if isinstance(one, ast.Name)}
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {one.arg for one in named if one is not None}


def test_explained_arguments_exist() -> None:
    """Whatever a docstring lists under Args is a parameter of that function or class."""
    for name, path in MODULES.items():
        for node in documented(path):
            assert set(described(node)) <= taken(node), f"{name}: {node.name}"


def called(name: str) -> list[Path]:
    """The files of modules by the end of their name, as it is written in prose."""
    ends = (f".{name}", f".{name}.__init__")
    return [path for one, path in MODULES.items() if f".{one}".endswith(ends)]


def test_modules_named_in_the_text_exist() -> None:
    """`steps.x.y` in a docstring or comment is a module or folder, or a name that stands in one."""
    reference = re.compile(rf"(?<!`)`((?:{'|'.join(FOLDERS)})(?:\.\w+)+)`(?!`)")
    for name, path in MODULES.items():
        for found in reference.findall(path.read_text("utf-8")):
            inside, _, last = found.rpartition(".")
            texts = (one.read_text("utf-8") for one in called(inside))
            stands = any(re.search(rf"\b{last}\b", text) for text in texts)
            assert called(found) or stands, f"{name}: {found}"
