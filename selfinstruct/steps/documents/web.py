"""HTML: what a reader sees of a page, without its navigation."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct.core.errors import DocumentError, MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString, Tag

# Never text of the page itself.
_LEFT_OUT = [
    "script", "style", "template", "noscript", "title", "svg", "nav", "footer",
    "button", "select", "textarea", "iframe", "rt", "rp",
]  # fmt: skip
# What begins on a line of its own.
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "legend", "li", "main", "ol", "p", "pre", "section", "summary", "table",
    "td", "th", "tr", "ul",
})  # fmt: skip
_CELLS = ["td", "th"]
# A row that holds one of these lays out the page.
_NO_CELL = ["table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"]
_ANCHORS = ("\u00b6", "#")  # links to a heading that generators put behind it
_PARAGRAPHS = 4  # that a cell has at most, or else it lays out the page too


def read_page(path: Path) -> list[Block]:
    """The blocks of an HTML file. Raises `DocumentError` where it is none."""
    try:
        return list(html_blocks(path.read_bytes()))
    except ValueError as error:
        raise DocumentError(f"{path}: {error}") from None


def html_blocks(data: bytes) -> Iterator[Block]:
    """The headings and paragraphs of an HTML page, in its own encoding; a row of a table is one.

    Raises `ValueError` for what is no text, and `MissingDependency`.
    """
    try:
        from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning
        from bs4.element import NavigableString, PreformattedString
        from bs4.exceptions import ParserRejectedMarkup
    except ModuleNotFoundError:
        raise MissingDependency("beautifulsoup4", "documents", "reading HTML") from None

    with warnings.catch_warnings():
        # A page may be as short as an address.
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        try:
            soup = BeautifulSoup(data, "html.parser")
        except ParserRejectedMarkup:  # a declaration that is none
            soup = BeautifulSoup(data.replace(b"<![", b"&lt;!["), "html.parser")
    if soup.contains_replacement_characters:
        raise ValueError("not text in the encoding that it names; save it as UTF-8")
    _clear(soup)
    places = _places(soup)
    rows = _rows(soup, places)
    strings = [
        string
        for string in (soup.body or soup).descendants
        # Comments, declarations and CDATA are strings too.
        if isinstance(string, NavigableString) and not isinstance(string, PreformattedString)
    ]

    def block_of(string: NavigableString) -> Tag:
        place = places[id(string.parent)]
        return place.row if place.row is not None and id(place.row) in rows else place.block

    known: dict[int, str] = {}  # the text of each cell so far
    # Tags that look the same are equal: what tells them apart is their id.
    for _, found in groupby(strings, lambda string: id(block_of(string))):
        within = list(found)
        block = block_of(within[0])
        is_row = id(block) in rows
        text = _row(within, rows[id(block)], places, known) if is_row else _text(within, block)
        if text:
            heading = len(block.name) == 2 and block.name[0] == "h" and block.name[1].isdigit()
            level = int(block.name[1]) if heading else 0
            yield Block(text, level, block.sourceline or 0)


def _clear(soup: BeautifulSoup) -> None:
    """Take out what is no text of the page, and keep apart what reads as one figure otherwise."""
    for tag in soup(_LEFT_OUT):
        tag.decompose()
    for tag in soup("a"):
        if len(tag.contents) == 1 and next(tag.stripped_strings, "") in _ANCHORS:
            tag.decompose()
    for tag in soup("aside"):
        if tag.decomposed:  # with the one around it
            continue
        # Within the text it is a note; beside it, links and advertisements.
        note = str(tag.get("role", "")).startswith("doc-") or tag.find_parent(["main", "article"])
        if not note:
            tag.decompose()
    whole = len(soup.get_text())
    for tag in soup("form"):
        # Some programs write the whole page into one.
        if not tag.decomposed and 2 * len(tag.get_text()) < whole:
            tag.decompose()
    for tag in soup(["br", "hr"]):
        tag.replace_with("\n")
    for tag in soup("sup"):
        if next(tag.stripped_strings, "")[:1].isdigit():
            linked = bool(tag.find("a", recursive=False)) or (
                tag.parent is not None and tag.parent.name == "a"
            )
            tag.insert(0, " [" if linked else "^")
            tag.append("]" if linked else "")


class _Place(NamedTuple):
    """The nearest block, table, row and cell that something stands in."""

    block: Tag
    table: Tag | None
    row: Tag | None
    cell: Tag | None


def _places(soup: BeautifulSoup) -> dict[int, _Place]:
    """The place of what stands in each tag, by the tag's id.

    Made from the outside in: where tags are never closed, each is within all before it.
    """
    places = {id(soup): _Place(soup, None, None, None)}
    for tag in soup(True):
        block, table, row, cell = places[id(tag.parent)]
        if tag.name in _BLOCKS:
            block = tag
        if tag.name in ("table", "tr"):
            row, cell = tag if tag.name == "tr" else None, None
        if tag.name == "table":
            table = tag
        if tag.name in _CELLS:
            cell = tag
        places[id(tag)] = _Place(block, table, row, cell)
    return places


def _rows(soup: BeautifulSoup, places: dict[int, _Place]) -> dict[int, list[Tag]]:
    """The cells of each row that is one, by the row's id; rows that lay out the page are none."""
    rows: dict[int, list[Tag]] = {}
    for cell in soup(_CELLS):
        if (row := places[id(cell)].row) is not None:
            rows.setdefault(id(row), []).append(cell)
    _span(rows, places)
    paragraphs = Counter(id(places[id(tag)].cell) for tag in soup("p"))
    layout = {id(places[id(tag.parent)].row) for tag in soup(_NO_CELL)}
    return {
        row: cells
        for row, cells in rows.items()
        if row not in layout
        and len(cells) > 1
        and all(paragraphs[id(cell)] <= _PARAGRAPHS for cell in cells)
    }


def _span(rows: dict[int, list[Tag]], places: dict[int, _Place]) -> None:
    """Put each cell that reaches over several rows into all of them."""
    within = 0  # the table, by its id
    left: dict[int, tuple[Tag, int]] = {}  # by column: a cell, and how many rows are still to come
    for row, cells in rows.items():
        around = id(places[id(cells[0])].table)
        if around != within:
            within, left = around, {}
        spanned: list[Tag] = []
        own, column = iter(cells), 0
        cell = next(own, None)
        while cell is not None or column in left:
            if column in left:
                above, more = left.pop(column)
                if more > 1:
                    left[column] = (above, more - 1)
                spanned.append(above)
            elif cell is not None:
                if (down := _number(cell, "rowspan")) > 1:
                    left[column] = (cell, down - 1)
                spanned.append(cell)
                column += _number(cell, "colspan") - 1
                cell = next(own, None)
            column += 1
        rows[row] = spanned


def _number(cell: Tag, name: str) -> int:
    value = str(cell.get(name, ""))
    return min(1000, max(1, int(value))) if value.isascii() and value.isdigit() else 1


def _row(
    strings: list[NavigableString],
    cells: list[Tag],
    places: dict[int, _Place],
    known: dict[int, str],
) -> str:
    """The cells of a row, apart by bars; an empty one keeps its place.

    `known` are the texts of cells of the rows before, and takes those of this one.
    """
    texts: dict[int, list[str]] = {}
    for _, found in groupby(strings, lambda string: id(places[id(string.parent)].block)):
        within = list(found)
        cell = id(places[id(within[0].parent)].cell)
        if text := " ".join("".join(within).split()):
            texts.setdefault(cell, []).append(text)
    known |= {cell: " ".join(found) for cell, found in texts.items()}
    parts = [known.get(id(cell), "") for cell in cells]
    outside = set(texts) - {id(cell) for cell in cells}
    parts += [known[cell] for cell in outside]
    return tidy(" | ".join(parts)) if any(parts) else ""


def _text(strings: list[NavigableString], block: Tag) -> str:
    """The strings of a block, with source line ends as spaces unless it is code."""
    keep = block.name == "pre"
    # A line end in the source is a space; that of a <br> is the only one in its string.
    return tidy("".join(one if keep or one == "\n" else one.replace("\n", " ") for one in strings))
