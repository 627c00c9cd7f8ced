"""Word documents (.docx)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct.core.errors import DocumentError, MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

if TYPE_CHECKING:
    from docx.document import Document

_HEADING = re.compile(r"heading ([1-9])$", re.IGNORECASE)
_CONTENTS = re.compile(r"(toc \d|table of figures)$", re.IGNORECASE)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TEXT = (_W + "t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t")
_SIGNS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "-"}
# Not read: what was deleted with changes tracked, settings, and what is there for old programs.
_LEFT_OUT = {
    _W + "del", _W + "moveFrom", _W + "pPr", _W + "rPr",
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
}  # fmt: skip
_NOTES = {_W + "footnoteReference": "footnotes", _W + "endnoteReference": "endnotes"}
_BOX = _W + "txbxContent"
_MAX_XML, _MAX_WHOLE = 100 << 20, 1 << 30  # bytes, unpacked


def docx_blocks(path: Path) -> Iterator[Block]:
    """The headings and paragraphs of a Word document in order; a row of a table is one.

    With tracked changes it is read as if they were accepted. A heading is known by its style
    ("Heading 1" to 6, "Title") or its outline level, so one that is only set in bold is a
    paragraph. A note stands in brackets where its mark is. Raises `DocumentError`,
    `MissingDependency`.
    """
    try:
        import docx
    except ModuleNotFoundError:
        raise MissingDependency("python-docx", "documents", "reading Word documents") from None
    try:
        _check_size(path)
        blocks = list(_Reader(docx.Document(str(path))).blocks())
    except (OSError, DocumentError):
        raise
    except Exception as error:  # noqa: BLE001 (of zipfile, lxml or python-docx, by what is broken)
        raise DocumentError(f"{path}: not a Word document ({_first_line(error)})") from None
    yield from blocks


def _check_size(path: Path) -> None:
    """A few kilobytes may unpack to more than memory holds."""
    with zipfile.ZipFile(path) as packed:
        sizes = [(one.filename.endswith(".xml"), one.file_size) for one in packed.infolist()]
    if sum(size for is_xml, size in sizes if is_xml) > _MAX_XML:
        raise DocumentError(f"{path}: unpacks to more than 100 MiB of text; split it")
    if sum(size for _, size in sizes) > _MAX_WHOLE:
        raise DocumentError(f"{path}: unpacks to more than 1 GiB; take its pictures out")


class _Reader:
    """Reads the elements of a document (ECMA-376 part 1, 17); python-docx passes some over."""

    def __init__(self, document: Document) -> None:
        self._body = document.element.body
        self._styles = {style.style_id: style for style in document.styles}
        self._notes: dict[str, dict[str, str]] = {kind: {} for kind in _NOTES.values()}
        for kind in _NOTES.values():
            self._notes[kind] = self._read_notes(document, kind)

    def blocks(self) -> Iterator[Block]:
        yield from self._within(self._body)

    def _within(self, element: Any) -> Iterator[Block]:
        for child in element:
            if child.tag == _W + "p":
                yield from self._paragraph(child)
            elif child.tag == _W + "tbl":
                yield from self._table(child)
            elif child.tag not in _LEFT_OUT:  # a content control, perhaps
                yield from self._within(child)

    def _paragraph(self, element: Any) -> Iterator[Block]:
        style = element.find(f"{_W}pPr/{_W}pStyle")
        name = self._styles.get(style.get(_W + "val")) if style is not None else None
        if name is not None and _CONTENTS.match(name.name or ""):
            return
        boxes: list[Any] = []
        if text := tidy("".join(self._strings(element, boxes))):
            yield Block(text, _level(element, name))
        for box in boxes:
            yield from self._within(box)

    def _strings(self, element: Any, boxes: list[Any]) -> Iterator[str]:
        for child in element:
            if child.tag in _TEXT:
                yield child.text or ""
            elif child.tag in _SIGNS:
                yield _SIGNS[child.tag]
            elif child.tag in _NOTES:
                note = self._notes[_NOTES[child.tag]].get(child.get(_W + "id"), "")
                yield f" [{note}]" if note else ""
            elif child.tag == _BOX:
                boxes.append(child)
            elif child.tag not in _LEFT_OUT:
                yield from self._strings(child, boxes)

    def _table(self, table: Any) -> Iterator[Block]:
        above: dict[int, str] = {}  # the text of each column's last cell
        for row in _nearest(table, "tr"):
            if row.find(f"{_W}trPr/{_W}del") is not None:
                continue
            cells = list(_nearest(row, "tc"))
            if len(cells) == 1:  # it frames the text
                yield from self._within(cells[0])
                continue
            texts, column = list[str](), 0
            for cell in cells:
                merged = cell.find(f"{_W}tcPr/{_W}vMerge")
                if merged is None or merged.get(_W + "val") == "restart":
                    found = " ".join(block.text for block in self._within(cell))
                    above[column] = found.replace("\n", " ")
                texts.append(above.get(column, ""))
                wide = cell.find(f"{_W}tcPr/{_W}gridSpan")
                column += int(wide.get(_W + "val")) if wide is not None else 1
            if any(texts):
                yield Block(tidy(" | ".join(texts)))

    def _read_notes(self, document: Document, kind: str) -> dict[str, str]:
        """The text of each foot- or endnote, by its number in the file."""
        from docx.oxml import parse_xml

        for relation in document.part.rels.values():
            if not relation.is_external and relation.reltype.endswith(f"/{kind}"):
                return {
                    note.get(_W + "id"): " ".join(block.text for block in self._within(note))
                    for note in parse_xml(relation.target_part.blob)
                }
        return {}


def _nearest(element: Any, name: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, those in content controls too."""
    for child in element:
        if child.tag == _W + name:
            yield child
        elif child.tag not in (*_LEFT_OUT, _W + "tbl", _W + "tc"):
            yield from _nearest(child, name)


def _level(element: Any, style: Any) -> int:
    """By the paragraph's own outline level, or by its style or one that the style is made from."""
    own = element.find(f"{_W}pPr/{_W}outlineLvl")
    for _ in range(20):  # styles may be made from each other
        if own is not None:
            return _outline(own)
        if style is None:
            return 0
        if (style.name or "").lower() == "title":
            return 1
        if found := _HEADING.match(style.name or ""):
            return min(6, int(found[1]))
        own = style.element.find(f"{_W}pPr/{_W}outlineLvl")
        style = getattr(style, "base_style", None)
    return 0


def _outline(element: Any) -> int:
    level = int(element.get(_W + "val")) + 1
    return 0 if level > 9 else min(6, level)  # the tenth is body text


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
