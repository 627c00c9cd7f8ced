"""PDF: the text of its pages, joined into paragraphs again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from selfinstruct.core.errors import DocumentError, MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

# A line at the edge of so many pages, and of this share of them, is not part of the text: heads
# may change from left to right pages, and the first page has none.
_REPEATED, _SHARE = 3, 0.4
_HEADS = 3  # lines at an edge that may be such, of five times as many
_NUMBER = re.compile(r"\d{1,6}")
_LETTER = re.compile(r"[^\W\d_]")
_ENDS = (".", "!", "?", ":", ";", "\u3002", "\uff01", "\uff1f")
# A line shorter than this share of a full one, at the end of a sentence, ends its paragraph.
_SHORT = 0.8
# One shorter than this is a heading, a row of a table, or the end of its paragraph.
_BROKEN = 0.6
# Where PDFium found a word divided at the end of a line, and where it may be.
_DIVIDED = re.compile("[\ufffe\u0002]\n?|([^\\W\\d_])[-\u00ad\u2010]\n([^\\W\\d_])")
# Letters that are drawn as one.
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"}
)


def pdf_blocks(path: Path) -> Iterator[Block]:
    """The paragraphs of a PDF, each with its page.

    Lines are joined up to one that ends a sentence and is short; running heads and page numbers are
    left out. A page with a picture and no text is a block without text. Raises `DocumentError` for
    a file that is none, is encrypted, or has no text (pages that are pictures), and
    `MissingDependency`.
    """
    pages, pictures = _pages(path)
    if not any(pages):
        raise DocumentError(
            f"{path}: a PDF without text, such as scanned pages; give it a text layer first "
            "(ocrmypdf does)"
        )
    for number, lines in enumerate(_without_running_heads(pages), 1):
        for paragraph in _paragraphs(lines):
            yield Block(paragraph, place=number)
        if number in pictures:
            yield Block("", place=number)


def _pages(path: Path) -> tuple[list[list[str]], set[int]]:
    """The lines of each page, and the numbers of those that are a picture without text."""
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
        pages, pictures = list[list[str]](), set[int]()
        for number, page in enumerate(document, 1):
            lines = _lines(page.get_textpage().get_text_bounded())
            if not lines and any(page.get_objects([pypdfium2.raw.FPDF_PAGEOBJ_IMAGE])):
                pictures.add(number)
            pages.append(lines)
        return pages, pictures
    except pypdfium2.PdfiumError as error:
        raise DocumentError(f"{path}: a page cannot be read ({error})") from None
    finally:
        document.close()


def _lines(text: str) -> list[str]:
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_LIGATURES)
    text = _DIVIDED.sub(_joined, text)
    return tidy(text).split("\n") if text.strip() else []


def _joined(match: re.Match[str]) -> str:
    before, after = match[1], match[2]
    if before is None:
        return ""
    return f"{before}{after}" if before.islower() and after.islower() else match[0]


def _without_running_heads(pages: list[list[str]]) -> list[list[str]]:
    """The pages without the lines at their edges that repeat, but for the number of the page."""
    times = Counter(
        key
        for page, lines in enumerate(pages)
        for key in {key for at in _edges(lines) for key in _keys(lines[at], page)}
    )
    least = max(_REPEATED, _SHARE * len(pages))
    common = {key for key, count in times.items() if count >= least}
    kept = []
    for page, lines in enumerate(pages):
        heads = {at for at in _edges(lines) if not common.isdisjoint(_keys(lines[at], page))}
        kept.append([line for at, line in enumerate(lines) if at not in heads])
    return kept


def _edges(lines: list[str]) -> list[int]:
    """The places of lines that may be running heads, on a page that has more than those."""
    if len(lines) < 3:
        return []
    heads = min(_HEADS, max(1, len(lines) // 5))
    return [*range(heads), *range(len(lines) - heads, len(lines))]


def _keys(line: str, page: int) -> set[str]:
    """What is the same in a running head on all pages: the line, or one whose number counts them.

    A row of figures is no head, although it looks like the one before it but for its digits.
    """
    counting = {
        f"{line[: found.start()]}#{int(found[0]) - page}{line[found.end() :]}"
        for found in _NUMBER.finditer(line)
    }
    return counting | ({line} if _LETTER.search(line) else set())


def _paragraphs(lines: list[str]) -> Iterator[str]:
    full = sorted(len(line) for line in lines)[len(lines) * 3 // 4] if lines else 0
    text = ""
    for line in lines:
        text += line
        if line.endswith(_ENDS) and len(line) < _SHORT * full:
            yield text
            text = ""
        elif text:
            text += "\n" if len(line) < _BROKEN * full else " "
    if text.strip():
        yield text.strip()
