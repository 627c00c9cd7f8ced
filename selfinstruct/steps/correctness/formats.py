"""Formats: an output that is to be JSON, XML, CSV or YAML must parse as it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from xml.parsers import expat

import orjson

from selfinstruct.steps.rules.view import View

MAX_SLOW = 200_000  # characters: YAML's parser takes seconds for a megabyte
# A fence begins its line, so that a row of backticks is looked at once.
_FENCED = re.compile(
    r"^[ \t]{0,8}```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]{0,8}```", re.DOTALL | re.MULTILINE
)
_NAMES = {"json": "json", "xml": "xml", "csv": "csv", "yaml": "yaml", "yml": "yaml"}
_ASKED = {
    name: re.compile(
        rf"\b(?:(?:as|in|into|to|a|valid|with|using|output|following) (?:an? |valid |the )?{name}"
        rf"|{name} (?:format|object|array|list|string|document|file|data|structure))\b",
        re.IGNORECASE,
    )
    for name in ("json", "xml", "csv", "yaml")
}
# Tasks in which the format is what is read or written about, not what is answered in.
_OTHER = re.compile(
    r"\b(?:function|script|code|program|class|method|parse|parser|explain|describe|difference|compare|"
    r"convert (?:the |this |an? )?(?:following |given )?(?:json|xml|csv|yaml)|"
    r"from (?:json|xml|csv|yaml)|"
    r"python|java|javascript|sql|query|regex|how|what|why|advantages?)\b",
    re.IGNORECASE,
)  # fmt: skip


def invalid_format(view: View) -> str:
    """What a parser says of an output in the format asked for, or of a block that names its own."""
    for fenced in _FENCED.finditer(view.output) if "```" in view.output else ():
        name = _NAMES.get(fenced[1].lower(), "")
        problem = _CHECKS[name](fenced[2].strip()) if name and fenced[2].strip() else ""
        if problem:
            return f"not {name.upper()}: {problem}"
    named = view.folded["instruction"]
    if len(named) > 2000 or not any(name in named for name in _ASKED):
        return ""
    if _OTHER.search(view.instruction):
        return ""
    asked = [name for name, pattern in _ASKED.items() if pattern.search(view.instruction)]
    if len(asked) != 1:
        return ""
    name = asked[0]
    text = _body(view.output, name)
    problem = _CHECKS[name](text) if text else ""
    return f"not {name.upper()}: {problem}" if problem else ""


def _body(output: str, name: str) -> str:
    """The part of an output that is to parse; "" where it does not even begin so."""
    fenced = _FENCED.search(output) if "```" in output else None
    text = (fenced[2] if fenced else output).strip()
    begins = {"json": ("{", "["), "xml": ("<",)}.get(name)
    return text if begins is None or text.startswith(begins) else ""


def _json(text: str) -> str:
    try:
        orjson.loads(text.encode("utf-8", "replace"))
    except orjson.JSONDecodeError as error:
        return f"{error.msg} at line {error.lineno}"
    return ""


def _xml(text: str) -> str:
    """Well-formedness alone: no entity is expanded and nothing is fetched."""
    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def refuse(*_: object) -> None:
        raise ValueError("it declares entities")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        return f"{expat.ErrorString(error.code)} at line {error.lineno}"
    except ValueError as error:
        return str(error)
    return ""


def _csv(text: str) -> str:
    """Rows of as many cells as the first one has, where that has commas."""
    lines = [line for line in text[:MAX_SLOW].splitlines() if line.strip()]
    if len(lines) < 2 or "," not in lines[0]:
        return ""
    try:
        widths = [len(row) for row in csv.reader(lines, skipinitialspace=True)]
    except csv.Error as error:
        return str(error)
    odd = next((n for n, width in enumerate(widths, 1) if width != widths[0]), None)
    if odd is None:
        return ""
    return f"row {odd} has {widths[odd - 1]} cells, the first one {widths[0]}"


def _yaml(text: str) -> str:
    import yaml

    try:
        for _ in yaml.parse(text[:MAX_SLOW], Loader=yaml.SafeLoader):
            pass
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return f"{error.problem} at line {line}"
    except yaml.YAMLError:
        return "a character that YAML does not allow"
    except RecursionError:
        return "nested too deep"
    return ""


_CHECKS: dict[str, Callable[[str], str]] = {"json": _json, "xml": _xml, "csv": _csv, "yaml": _yaml}
