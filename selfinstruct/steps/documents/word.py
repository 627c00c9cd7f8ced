"""Word documents (.docx)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from selfinstruct.core.errors import DocumentError, MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

_HEADING = re.compile(r"heading ([1-9])$", re.IGNORECASE)


def docx_blocks(path: Path) -> Iterator[Block]:
    """The headings and paragraphs of a Word document in order; a row of a table is one.

    A heading is known by its style ("Heading 1" to 6, "Title"), so one that is only set in bold is
    a paragraph. Raises `DocumentError`, `MissingDependency`.
    """
    try:
        import docx
        from docx.table import Table
    except ModuleNotFoundError:
        raise MissingDependency("python-docx", "documents", "reading Word documents") from None
    try:
        content = list(docx.Document(str(path)).iter_inner_content())
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 (of zipfile, lxml or python-docx, by what is broken)
        raise DocumentError(f"{path}: not a Word document ({_first_line(error)})") from None
    for item in content:
        if isinstance(item, Table):
            for row in item.rows:
                # A merged cell is given once for each cell it covers.
                cells = dict.fromkeys(tidy(cell.text).replace("\n", " ") for cell in row.cells)
                if text := " | ".join(filter(None, cells)):
                    yield Block(text)
        elif text := tidy(item.text):
            yield Block(text, _level(item.style.name if item.style is not None else None))


def _level(style: str | None) -> int:
    if (style or "").lower() == "title":
        return 1
    found = _HEADING.match(style or "")
    return min(6, int(found[1])) if found else 0


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
