"""Personal data: addresses, numbers and ids that pass a check of their own."""

from __future__ import annotations

from selfinstruct.steps.pii import find_pii
from selfinstruct.steps.rules.view import PARTS, View


def personal_data(view: View) -> str:
    """What the scan before publishing would report of a record (`steps.pii`), by kind alone."""
    for part in PARTS:
        found = find_pii(getattr(view, part))
        if found:
            return f"{found[0].kind} in the {part}"
    return ""
