"""How a fault in a seed file is worded: one line, beginning with the file and the line."""

from __future__ import annotations

from typing import Any

from selfinstruct.core.errors import SeedError

KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}
NAMES_SHOWN = 12


def fault(where: str, said: str) -> SeedError:
    """The error for `where` (``file`` or ``file:line``): what is wrong there and what to do."""
    return SeedError(f"{where}: {said}")


def kind_of(value: Any) -> str:
    """What a value is, as people call it ("a list", "null")."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def quoted(names: list[str]) -> str:
    """`names` in double quotes, at most `NAMES_SHOWN` of them; "none" where there are none."""
    shown = ", ".join(f'"{name}"' for name in names[:NAMES_SHOWN])
    left = len(names) - NAMES_SHOWN
    return f"{shown} and {left} more" if left > 0 else shown or "none"
