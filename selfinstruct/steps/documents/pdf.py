"""PDF: the text of its pages, joined into paragraphs again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from selfinstruct.core.errors import DocumentError, MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

# A first or last line that comes on so many pages, and on half of them, is not part of the text.
_REPEATED = 3
_DIGITS = re.compile(r"\d+")
_ENDS = (".", "!", "?", ":", ";", "\u3002", "\uff01", "\uff1f")
# A line shorter than this share of the usual one, at the end of a sentence, ends its paragraph.
_SHORT = 0.8
# Where PDFium found a word divided at the end of a line.
_DIVIDED = re.compile("[\ufffe\u0002]\n?|(?<=[a-z])[-\u00ad]\n(?=[a-z])")


def pdf_blocks(path: Path) -> Iterator[Block]:
    """The paragraphs of a PDF, each with its page.

    Lines are joined up to one that ends a sentence and is short; running heads and page numbers are
    left out. Raises `DocumentError` for a file that is none, is encrypted, or has no text (pages
    that are pictures), and `MissingDependency`.
    """
    pages = _pages(path)
    if not any(pages):
        raise DocumentError(
            f"{path}: a PDF without text, such as scanned pages; give it a text layer first "
            "(ocrmypdf does)"
        )
    for number, lines in enumerate(_without_running_heads(pages), 1):
        for paragraph in _paragraphs(lines):
            yield Block(paragraph, place=number)


def _pages(path: Path) -> list[list[str]]:
    """The lines of each page."""
    try:
        import pypdfium2
    except ModuleNotFoundError:
        raise MissingDependency("pypdfium2", "documents", "reading PDF") from None
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        said = "encrypted; save a copy without its password" if locked else "not a PDF"
        raise DocumentError(f"{path}: {said}") from None
    try:
        return [_lines(page.get_textpage().get_text_bounded()) for page in document]
    except pypdfium2.PdfiumError as error:
        raise DocumentError(f"{path}: a page cannot be read ({error})") from None
    finally:
        document.close()


def _lines(text: str) -> list[str]:
    text = _DIVIDED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return tidy(text).split("\n") if text.strip() else []


def _without_running_heads(pages: list[list[str]]) -> list[list[str]]:
    """The pages without the first and last lines that repeat, but for their numbers."""
    edges = Counter(_DIGITS.sub("#", line) for lines in pages for line in {*lines[:1], *lines[-1:]})
    common = {
        line for line, times in edges.items() if times >= max(_REPEATED, (len(pages) + 1) // 2)
    }
    return [
        [
            line
            for n, line in enumerate(lines)
            if n not in (0, len(lines) - 1) or _DIGITS.sub("#", line) not in common
        ]
        for lines in pages
    ]


def _paragraphs(lines: list[str]) -> Iterator[str]:
    usual = median(len(line) for line in lines) if lines else 0
    run: list[str] = []
    for line in lines:
        run.append(line)
        if line.endswith(_ENDS) and len(line) < _SHORT * usual:
            yield " ".join(run)
            run = []
    if run:
        yield " ".join(run)
