"""Python that must run: off unless a recipe asks for it, because it runs what a model wrote."""

from __future__ import annotations

from selfinstruct.steps.correctness.python_code import python_code, syntax_error
from selfinstruct.steps.correctness.sandbox import run_python
from selfinstruct.steps.rules.view import View


def failing_python(view: View) -> str:
    """How the Python of the output fails in a limited child process (`sandbox.run_python`).

    Raises `RecipeError` where this system cannot limit a child.
    """
    code = python_code(view)
    return run_python(code) if code and not syntax_error(code) else ""
