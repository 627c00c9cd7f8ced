"""Python: an output that is Python must compile."""

from __future__ import annotations

import ast
import re
import warnings

from selfinstruct.steps.rules.view import View

MAX_CODE = 100_000  # characters
_FENCED = re.compile(
    r"^[ \t]{0,8}```[ \t]*(?:python|py)3?[^\n]*\n(.*?)^[ \t]{0,8}```",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
_PYTHON = re.compile(r"\bpython\b", re.IGNORECASE)
# What no other language's first line looks like.
_SURE = re.compile(
    r"(?:def \w+\(.*\)(?: ->.*)?:|import \w[\w.]*(?: as \w+)?|from \w[\w.]* import \w.*[^;]|"
    r"class \w+(?:\(.*\))?:)\s*(?:#.*)?"
)
_FIRST_LINE = re.compile(
    r"(?:def \w+\(.*|class \w+.*:|import \w.*|from \w[\w.]* import .*|for \w.* in .*:|while .*:|"
    r"if .*:|print\b.*|[A-Za-z_][\w., ]* ?= ?.+|@\w.*|#.*|\"\"\".*|'''.*)\s*"
)
# What people write under a program: its output, or a remark.
_AFTER = re.compile(
    r"^\s*(?:#+ ?)?(?:expected |sample |example )?"
    r"(?:output|explanation|result|example|note)s?[ \t]*(?::.*)?$",
    re.IGNORECASE | re.MULTILINE,
)
_PROSE = re.compile(r"\s*[A-Z][a-z']*(?: [^ ]+){4,}[.:!]?\s*|\s*(?:\d+[.)]|[-*\u2022]) .*")


def invalid_python(view: View) -> str:
    """Python's own syntax error for the code in the output; prose around it is left out."""
    code = python_code(view)
    return syntax_error(code) if code else ""


def python_code(view: View) -> str:
    """The Python of an output: what is fenced as such, or all of it where it begins as a program.

    A beginning that other languages share counts where the task speaks of Python.
    """
    fenced = [match[1] for match in _FENCED.finditer(view.output[: 2 * MAX_CODE])]
    if fenced:
        return "\n".join(fenced)[:MAX_CODE]
    text = view.output.strip("\n")
    if len(text) > MAX_CODE or "```" in text:
        return ""
    first = next((line for line in text.splitlines() if line.strip()), "")[:500]
    asked = _FIRST_LINE.fullmatch(first) and _PYTHON.search(view.task[:4000])
    if not asked and not _SURE.fullmatch(first):
        return ""
    # Only where the whole does not compile: such a line may also stand in a docstring.
    after = _AFTER.search(text) if syntax_error(text) else None
    return text[: after.start()] if after and not syntax_error(text[: after.start()]) else text


def syntax_error(code: str) -> str:
    """Why `code` does not compile, or "". It is parsed and never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like
            ast.parse(code)
    except SyntaxError as error:
        lines, at = code.splitlines(), error.lineno or 0
        line = lines[at - 1] if 0 < at <= len(lines) else ""
        if _PROSE.fullmatch(line[:500]):
            return ""
        return f"{error.msg} at line {error.lineno}"
    except ValueError:
        return "a null character"
    except (RecursionError, MemoryError):
        return "nested too deep"
    return ""
