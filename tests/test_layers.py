"""The layers of the package: imports point down only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import selfinstruct

PACKAGE = Path(selfinstruct.__file__).parent
# What each layer may see besides itself. `api` and `cli` stand side by side at the top.
MAY_SEE = {
    "core": set(),
    "steps": {"core"},
    "engine": {"steps", "core"},
    "stages": {"engine", "steps", "core"},
    "testing": {"steps", "core"},
    "api": {"stages", "engine", "steps", "core"},
    "cli": {"api", "stages", "engine", "steps", "core"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def dotted(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("selfinstruct", *parts)).removesuffix(".__init__")


NAMES = {dotted(path) for path in MODULES}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inside & NAMES) or {node.module}
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.split(".")[0] == "selfinstruct"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A module imports only from its own layer and the ones below; stages never import a stage."""
    layer = path.relative_to(PACKAGE).parts[0]
    own = dotted(path)
    for name in imported(path):
        parts = name.split(".")
        if len(parts) == 1:  # the package itself: its version
            continue
        assert parts[1] in MAY_SEE[layer] | {layer}, f"{own} imports {name}"
        if layer == "stages" and parts[1] == "stages":
            raise AssertionError(f"{own} imports another stage, {name}")


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports have no circles, not even through those inside a function or for types alone."""
    TopologicalSorter({dotted(path): imported(path) for path in MODULES}).prepare()


def test_only_stages_and_the_command_line_see_whole_recipes() -> None:
    """Steps take plain arguments: none of their modules imports the whole recipe."""
    for path in MODULES:
        layer = path.relative_to(PACKAGE).parts[0]
        if layer not in ("steps", "engine") or path.name == "folder.py":
            continue
        assert "selfinstruct.core.recipe" not in imported(path), path
