"""Prompt files: text with a short header, and named places that values go into.

    ---
    name: alpaca
    version: 1
    ---
    [system]
    You are ...
    [user]
    Come up with {{count}} tasks ...

A body without ``[system]``, ``[user]``, ``[assistant]`` lines is one user message. ``{{name}}`` is
replaced by the value of that name, once, and nothing in a prompt or in a value is ever executed or
expanded again. The version and a hash of the text go into the id of every request made from it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import msgspec
import yaml

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.shipped import find
from selfinstruct.core.types import Message, Role

_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_ROLE = re.compile(r"^\[(system|user|assistant)\][ \t]*$", re.MULTILINE)
_FILE = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*\r?\n(.*)\Z", re.DOTALL)


class Prompt(msgspec.Struct, frozen=True):
    """A prompt file, read. `sections` are (role, text with places) in order."""

    name: str
    version: str
    sections: tuple[tuple[Role, str], ...]
    source: str

    @property
    def tag(self) -> str:
        """``name@version-hash``: what goes into request ids and lineage."""
        return f"{self.name}@{self.version}-{fingerprint(self.sections)[:8]}"

    @property
    def places(self) -> frozenset[str]:
        """The names of the places in the text."""
        return frozenset(name for _, text in self.sections for name in _PLACE.findall(text))

    def render(self, **values: str) -> tuple[Message, ...]:
        """The messages with `values` put in. Every place must be given."""
        return tuple(
            Message(role, _PLACE.sub(lambda match: values[match[1]], text))
            for role, text in self.sections
        )


def load_prompt(path: str | Path, needs: frozenset[str]) -> Prompt:
    """Read a prompt file and check that its places are among `needs`, with all of them there.

    Raises `RecipeError` naming the file and what is wrong.
    """
    found = find(path)
    if found is None:
        raise RecipeError(f"{path}: no such prompt file")
    try:
        text = found.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    parts = _FILE.match(text)
    if parts is None:
        raise RecipeError(f"{path}:1: a prompt file begins with a header between two '---' lines")
    name, version = _header(path, parts[1])
    prompt = Prompt(name, version, _sections(parts[2]), str(path))
    unknown, missing = prompt.places - needs, needs - prompt.places
    if unknown or missing:
        wrong = [f"unknown {{{{{name}}}}}" for name in sorted(unknown)]
        wrong += [f"missing {{{{{name}}}}}" for name in sorted(missing)]
        known = ", ".join(f"{{{{{name}}}}}" for name in sorted(needs))
        raise RecipeError(f"{path}: {', '.join(wrong)}; this prompt takes {known}")
    return prompt


def _header(path: str | Path, text: str) -> tuple[str, str]:
    try:
        header = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: the header is not YAML ({error})") from None
    if not isinstance(header, dict) or not {"name", "version"} <= header.keys():
        raise RecipeError(f"{path}: the header needs 'name' and 'version'")
    return str(header["name"]), str(header["version"])


def _sections(body: str) -> tuple[tuple[Role, str], ...]:
    marks = list(_ROLE.finditer(body))
    if not marks:
        return (("user", body.strip("\n")),)
    ends = [mark.start() for mark in marks[1:]] + [len(body)]
    return tuple(
        (cast(Role, mark[1]), body[mark.end() : end].strip("\n"))
        for mark, end in zip(marks, ends, strict=True)
    )
