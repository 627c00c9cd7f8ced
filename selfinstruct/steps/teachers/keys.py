"""API keys: read from the environment or a file when a teacher starts, and again when the server
refuses one in mid-run; kept in no setting, log or message.
"""

from __future__ import annotations

import os
from pathlib import Path

from selfinstruct.core.errors import UserError


def read_key(variable: str | None, *, needed: bool, file: str | None = None) -> str:
    """The key in `file` or the environment variable `variable`; "" where there is none.

    Args:
        variable: the variable's name, if the recipe has one.
        needed: whether it is an error that there is no key.
        file: a file that holds the key and nothing else. It goes before the variable, and may be
            changed during a run: environments of running processes do not change.

    Raises `UserError`, naming variable or file and never a value, where a needed key is missing or
    holds what cannot go into a header.
    """
    place, key = (file, _in_file(file)) if file else (variable, os.environ.get(variable or "", ""))
    key = key.strip()
    if not key and needed:
        if file:
            raise UserError(f"the teacher's key is missing: {file} is empty (teacher.api_key_file)")
        raise UserError(
            f"the teacher's key is missing: set it with `export {variable}=...` "
            "(a recipe names another variable with teacher.api_key_env)"
        )
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"the value of {place} holds characters that no key has")
    return key


def _in_file(file: str) -> str:
    try:
        return Path(file).expanduser().read_text("utf-8", "replace")
    except OSError as error:
        raise UserError(f"teacher.api_key_file: cannot read {file} ({error.strerror})") from None
