"""The documents: what they embed is what the code says, their code runs, their links work.

``python tests/test_docs.py --write`` renews the parts between ``<!-- begin ... -->`` markers.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
import sys
import tomllib
import types
import typing
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import selfinstruct
from selfinstruct.cli.common import with_budget
from selfinstruct.cli.init import start_project
from selfinstruct.cli.main import COMMANDS, cli
from selfinstruct.core import errors
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.recipe_file import load_recipe
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.engine import retries
from selfinstruct.testing.fake_server import Running

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
# Files that users read and edit, beside the pages.
TEXTS = [
    *PAGES,
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
    *sorted(path for name in ("recipes", "prompts") for path in (ROOT / name).rglob("*.*")),
]
# The address that the shipped recipes give for a server on this machine.
RECIPE_ADDRESS = "http://localhost:8000"
HELP_WIDTH = 80
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    """A page's text."""
    return path.read_text("utf-8")


def ids(path: Path) -> str:
    """A page's name in test reports."""
    return path.relative_to(ROOT).as_posix()


# -- the parts that are written by the code -------------------------------------------------------


def help_text(name: str) -> str:
    """A command's ``--help`` at a fixed width; that of the program for an empty name."""
    arguments = [name, "--help"] if name else ["--help"]
    result = CliRunner().invoke(
        cli, arguments, prog_name="selfinstruct", terminal_width=HELP_WIDTH, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.output.strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def sections(model: type[BaseModel], key: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a recipe with the key it stands under, each model once."""
    yield key, model
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None and (inner is not TeacherConfig or (key, name) == ("", "teacher")):
            yield from sections(inner, f"{key}.{name}" if key else name)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The section in a field's annotation: itself, or inside a list, a dict or an option."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_in(inner) for inner in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


def section_table(model: type[BaseModel]) -> str:
    """What a section is, and its keys with values, defaults and meaning."""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (
            f"`{name}`",
            values(field),
            default(field),
            " ".join((field.description or "").split()),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return " ".join((model.__doc__ or "").split()) + "\n\n" + "\n".join(rows)


def values(field: FieldInfo) -> str:
    """What a key takes, in a few words, with its bounds."""
    said = type_words(field.annotation)
    lower, upper = "", ""
    for bound in bounds(field):
        for name, sign in (("ge", "at least"), ("gt", "above")):
            if (value := getattr(bound, name, None)) is not None:
                lower = f"{sign} {value}"
        for name, sign in (("le", "at most"), ("lt", "below")):
            if (value := getattr(bound, name, None)) is not None:
                upper = f"{sign} {value}"
    return ", ".join(part for part in (said, lower, upper) if part)


def bounds(field: FieldInfo) -> list[Any]:
    """The constraints on a field, those inside an option too."""
    found = list(field.metadata)
    for inner in typing.get_args(field.annotation):
        for part in getattr(inner, "__metadata__", ()):
            found += part.metadata if isinstance(part, FieldInfo) else [part]
    return found


def type_words(annotation: Any) -> str:
    """An annotation in words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_words(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (types.UnionType, typing.Union):
        return ", ".join(type_words(part) for part in inner if part is not type(None))
    if origin is list:
        return f"list of {type_words(inner[0])}s"
    if origin is dict:
        return "mapping" if inner[1] is Any else f"mapping to {type_words(inner[1])}s"
    if model_in(annotation) is not None:
        return "section"
    return {"str": "text", "bool": "`true`, `false`", "int": "integer"}.get(
        annotation.__name__, "number"
    )


def default(field: FieldInfo) -> str:
    """A key's default as it would stand in YAML."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        value = [entry.model_dump(mode="json", exclude_defaults=True) for entry in value]
    if not isinstance(value, (bool, int, float, str, list, dict)):
        value = str(value)  # a Decimal
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace('"', "" if value else '"')


def dependencies() -> dict[str, list[str]]:
    """The packages that pyproject.toml asks for, by extra; "" for those always installed.

    Without vLLM, which installs only where there is a GPU, and the trackers that no test uses, so
    that nothing is known of them here.
    """
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    wanted = {"": project["dependencies"]} | {
        extra: packages
        for extra, packages in project["optional-dependencies"].items()
        if extra not in ("all", "dev", "liger", "serve", "trackio", "wandb")
    }
    return {
        extra: [re.split(r"[\[<>=]", package)[0] for package in packages]
        for extra, packages in wanted.items()
    }


def license_of(package: str) -> str:
    """The licence as a package's metadata gives it, on one short line."""
    about = metadata.metadata(package)
    for found in about.get_all("License-Expression", []) + about.get_all("License", []):
        line = str(found).strip().splitlines()[:1]
        if line and line[0] != "UNKNOWN" and "::" not in line[0] and len(line[0]) < 120:
            return line[0]
    named = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if "License" in c]
    if not named:  # only the licence itself: its title
        text = metadata.distribution(package).read_text("licenses/LICENSE") or ""
        named = text.strip().splitlines()[:1]
    return ", ".join(named)


def dependency_table() -> str:
    """Each package with its extra, version, size and licence, as installed here."""
    rows = ["| package | extra | version | installed MB | licence |", "|---|---|---|---:|---|"]
    for extra, packages in dependencies().items():
        for package in packages:
            found = metadata.distribution(package)
            places = [Path(str(file.locate())) for file in found.files or []]
            size = sum(place.stat().st_size for place in places if place.is_file()) / 1e6
            rows.append(
                f"| {package} | {extra or '(always)'} | {found.version} | {size:.1f} "
                f"| {license_of(package)} |"
            )
    return "\n".join(rows)


def steps_table() -> str:
    """The folders of `steps`, each with its docstring's first line."""
    rows = ["| folder | what is in it |", "|---|---|"]
    for path in sorted((ROOT / "selfinstruct" / "steps").glob("*/__init__.py")):
        first = (ast.get_docstring(ast.parse(read(path))) or "").splitlines()[0]
        rows.append(f"| `{path.parent.name}` | {first} |")
    return "\n".join(rows)


def embedded() -> dict[Path, dict[str, str]]:
    """What stands between the markers of which page, by the marker's name."""
    commands = {f"help {name}".strip(): help_text(name) for name in ("", *COMMANDS)}
    recipe = {f"section {key}".strip(): section_table(model) for key, model in sections(Recipe)}
    return {
        DOCS / "architecture.md": {"steps": steps_table()},
        DOCS / "cli.md": commands,
        DOCS / "recipes.md": recipe,
    }


def part(text: str, name: str) -> str:
    """What a page holds between the markers of `name`."""
    match = re.search(_markers(name), text, re.DOTALL)
    assert match is not None, f"no markers for {name!r}"
    return match[2].strip()


def replaced(text: str, name: str, by: str) -> str:
    """A page's text with another part between the markers of `name`."""
    part(text, name)
    return re.sub(
        _markers(name), lambda match: f"{match[1]}\n{by}\n{match[3]}", text, flags=re.DOTALL
    )


def _markers(name: str) -> str:
    return rf"(<!-- begin {re.escape(name)} -->)(.*?)(<!-- end {re.escape(name)} -->)"


def write() -> None:
    """Renew every embedded part."""
    parts = embedded()
    parts[DOCS / "decisions.md"] = {"dependencies": dependency_table()}
    for path, named in parts.items():
        text = read(path)
        for name, content in named.items():
            text = replaced(text, name, content)
        path.write_text(text, "utf-8")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_help_of_every_command_is_embedded(name: str) -> None:
    """docs/cli.md shows each command's --help word for word; renew it with --write."""
    assert part(read(DOCS / "cli.md"), f"help {name}".strip()) == help_text(name)


@pytest.mark.parametrize(("key", "model"), list(sections(Recipe)))
def test_every_recipe_key_is_documented(key: str, model: type[BaseModel]) -> None:
    """docs/recipes.md has each section's keys, defaults and docstrings; renew it with --write."""
    assert part(read(DOCS / "recipes.md"), f"section {key}".strip()) == section_table(model)


def test_every_folder_of_steps_is_described() -> None:
    """docs/architecture.md has each folder's first line; renew it with --write."""
    assert part(read(DOCS / "architecture.md"), "steps") == steps_table()


def test_nothing_else_is_embedded() -> None:
    """A part whose command or section is gone does not stay behind."""
    for path, named in embedded().items():
        assert set(re.findall(r"<!-- begin (.+?) -->", read(path))) == set(named)


def test_every_dependency_is_listed_with_its_licence() -> None:
    """docs/decisions.md has each package of pyproject.toml under its extra, with its licence.

    Versions and sizes depend on the machine and are not compared.
    """
    rows = re.findall(r"^\| ([\w.-]+) \| (\S+) \| [^|]+ \| [^|]+ \| (.+) \|$",
                      part(read(DOCS / "decisions.md"), "dependencies"), re.MULTILINE)  # fmt: skip
    expected = [
        (package, extra or "(always)", license_of(package))
        for extra, packages in dependencies().items()
        for package in packages
    ]
    assert rows[1:] == expected  # the header comes first


# -- tables that people write and the code can check ----------------------------------------------


def table(path: Path, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with `first`, without header and backticks."""
    lines = read(path).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def all_errors(kind: type[errors.SelfInstructError]) -> Iterator[type[errors.SelfInstructError]]:
    """An error class and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


@pytest.mark.parametrize("page", ["docs/cli.md", "README.md"])
def test_exit_codes_are_those_of_the_errors(page: str) -> None:
    """Each exit code's row names the error classes that have it, in cli.md and in the README."""
    documented = {
        int(row[0]): {name.strip() for name in row[1].split(",") if name.strip()}
        for row in table(ROOT / page, "exit code")
    }
    actual: dict[int, set[str]] = {0: set()}
    for kind in all_errors(errors.SelfInstructError):
        if kind.__module__ == errors.__name__:
            actual.setdefault(kind.exit_code, set()).add(kind.__name__)
    assert documented == actual


def test_retries_are_those_of_the_dispatcher() -> None:
    """docs/teachers.md has every kind of fault, whether it is repeated and whether it stops."""
    rows = {row[0]: row for row in table(DOCS / "teachers.md", "fault")}
    assert list(rows) == list(typing.get_args(errors.FaultKind))
    for kind, row in rows.items():
        assert row[2].startswith("yes") == (kind in errors.RETRYABLE), kind
        assert ("stops the run" in row[3]) >= (kind in errors.STOPS_THE_RUN), kind
    assert f"{retries.RATE_LIMIT_ATTEMPTS} attempts" in rows["rate_limited"][2]
    assert f"{retries.FIRST_CONTACT_ATTEMPTS} attempts" in rows["connection"][2]
    text = read(DOCS / "teachers.md")
    assert f"{retries.BACKOFF_LIMIT:.0f} s" in text
    assert f"{retries.BREAKER} requests in a row" in text


def test_every_extra_is_in_the_readme() -> None:
    """Each extra of pyproject.toml is named where installing is described."""
    for extra in [*filter(None, dependencies()), "all"]:
        assert f"`{extra}`" in read(ROOT / "README.md"), extra


def test_every_shipped_file_of_a_recipe_is_mentioned() -> None:
    """docs/recipes.md names each recipe, wording file, seed file and prompt that is shipped."""
    text = read(DOCS / "recipes.md")
    for folder in ("recipes", "seeds", "prompts"):
        for path in (ROOT / folder).rglob("*.*"):
            assert path.relative_to(ROOT).as_posix() in text, path


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_recipes_in_the_pages_are_valid(path: Path, tmp_path: Path) -> None:
    """Every YAML block is a recipe, or sections of one, without unknown keys."""
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```$", read(path), re.M | re.S)):
        whole = {"seeds": ["s.jsonl"], "teacher": {"kind": "scripted", "model": "replies.jsonl"}}
        given = yaml.safe_load(block)
        file = tmp_path / f"block-{number}.yaml"
        file.write_text(yaml.safe_dump(whole | given), "utf-8")
        assert load_recipe(file).name


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_commands_in_the_pages_are_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line of a shell block has a known command, options and settings."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```(?:bash|console)\n(.*?)^```$", read(path), re.M | re.S)
    lines = re.findall(r"^(?:\$ )?selfinstruct (.+)$", "".join(blocks), re.MULTILINE)
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        given = command.make_context(name, arguments).params
        if "recipe" in given and str(given["recipe"]).startswith("recipes/"):
            budget = given.get("target"), given.get("max_cost")
            assert load_recipe(given["recipe"], with_budget(given["overrides"], *budget))


# -- code in the pages ----------------------------------------------------------------------------


def code_blocks(path: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page with the comment line above each, if there is one."""
    found = re.findall(r"(?:^<!-- ([^\n]*) -->\n)?^```python\n(.*?)^```$", read(path), re.M | re.S)
    return [(note, code) for note, code in found]


def names_used(code: str) -> Iterator[tuple[str, str]]:
    """Attributes of ``run`` and of ``selfinstruct`` in the code."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


@pytest.fixture
def project(tmp_path: Path, fake_server: Running, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A starter project whose recipes find the fake server where they look for one."""
    start_project(tmp_path)
    for path in (tmp_path / "recipes").glob("*.yaml"):
        path.write_text(read(path).replace(RECIPE_ADDRESS, fake_server.url), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_the_python_code_runs(page: str, project: Path) -> None:
    """The blocks of a page run one after the other in a new project, against the fake server.

    A block that needs a student is marked "not run"; there each name must at least exist.
    """
    names: dict[str, Any] = {"__name__": "docs"}
    ran = 0
    for note, code in code_blocks(ROOT / page):
        if note.startswith("not run"):
            for owner, attribute in names_used(code):
                if owner in ("run", "selfinstruct"):
                    where = selfinstruct.Run if owner == "run" else selfinstruct
                    assert hasattr(where, attribute) or attribute == "folder", attribute
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, page, "exec"), names)
        ran += 1
    assert ran
    assert any(project.glob("outputs/*/run.db"))


# -- links and manners ----------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that a page's headings get on GitHub."""
    headings = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", read(path)), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link names a file that is there, and each anchor a heading of its page."""
    text = _FENCE.sub("", read(path))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        missing = (
            anchor and found.is_file() and found.suffix == ".md" and anchor not in anchors(found)
        )
        if missing or not found.exists():
            broken.append(target)
    assert not broken


def test_the_index_leads_to_every_page() -> None:
    """docs/index.md links each page beside it."""
    for path in DOCS.glob("*.md"):
        assert path.name == "index.md" or f"]({path.name})" in read(DOCS / "index.md"), path.name


# Written so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:home|root|work|tmp|Users|opt|mnt)/\w",
    "a package index": r"py" + r"pi\.org|python" + r"hosted\.org|ana" + r"conda\.org",
    "a key": r"\bsk-[A-Za-z0-9]{8,}|\bhf_[A-Za-z0-9]{8,}",
}


@pytest.mark.parametrize("path", TEXTS, ids=ids)
def test_pages_name_no_machine(path: Path) -> None:
    """No path of somebody's machine, no host of a package index, no key."""
    for what, pattern in FORBIDDEN.items():
        found = re.search(pattern, read(path))
        assert found is None, f"{what}: {found and found[0]}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_docs.py --write")
    write()
