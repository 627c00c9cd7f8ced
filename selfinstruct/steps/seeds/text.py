"""What is done to a field's text: as little as possible."""

from __future__ import annotations

import re

from selfinstruct.steps.seeds.faults import fault

_BLANK_LINES = re.compile(r"\A(?:[ \t]*\r?\n)+")
_LONGEST_NO_INPUT = 20


def trim(text: str) -> str:
    """`text` without blank lines before it and without white space after it.

    The first line's indentation stays: in code it has a meaning.
    """
    return _BLANK_LINES.sub("", text).rstrip()


def is_no_input(text: str) -> bool:
    """Whether `text` only says that there is no input: "<noinput>", "No input.", "(noinput)"."""
    if len(text) > _LONGEST_NO_INPUT:
        return False
    return "".join(letter for letter in text.lower() if letter.isalnum()) == "noinput"


def check_text(text: str, field: str, where: str) -> str:
    """`text`, if it can be written as UTF-8.

    JSON's escapes can spell half of a surrogate pair, as when an emoji was cut in two; such a
    string can be neither stored nor sent. Raises `SeedError`.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise fault(
            where,
            f'field "{field}" holds half a character ({half} at {error.start}), as when an '
            "emoji is cut in two; remove it",
        ) from error
    return text
