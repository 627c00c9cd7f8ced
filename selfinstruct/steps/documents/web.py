"""HTML: what a reader sees of a page, without its navigation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct.core.errors import MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString, Tag

# Never text of the page itself.
_LEFT_OUT = [
    "script", "style", "template", "noscript", "title", "svg", "nav", "footer",
    "button", "select", "textarea", "iframe",
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
_PARAGRAPHS = 4  # that a cell has at most, or else it lays out the page too


def html_blocks(data: bytes) -> Iterator[Block]:
    """The headings and paragraphs of an HTML page, in its own encoding; a row of a table is one.

    Raises `MissingDependency`.
    """
    try:
        from bs4 import BeautifulSoup
        from bs4.element import NavigableString, PreformattedString
    except ModuleNotFoundError:
        raise MissingDependency("beautifulsoup4", "documents", "reading HTML") from None

    soup = BeautifulSoup(data, "html.parser")
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

    # Tags that look the same are equal: what tells them apart is their id.
    for _, found in groupby(strings, lambda string: id(block_of(string))):
        within = list(found)
        block = block_of(within[0])
        is_row = id(block) in rows
        text = _row(within, rows[id(block)], places) if is_row else _text(within, block)
        if text:
            heading = len(block.name) == 2 and block.name[0] == "h" and block.name[1].isdigit()
            level = int(block.name[1]) if heading else 0
            yield Block(text, level, block.sourceline or 0)


def _clear(soup: BeautifulSoup) -> None:
    """Take out what is no text of the page, and keep apart what reads as one figure otherwise."""
    for tag in soup(_LEFT_OUT):
        tag.decompose()
    for tag in soup("aside"):
        # Within the text it is a note; beside it, links and advertisements.
        note = str(tag.get("role", "")).startswith("doc-") or tag.find_parent(["main", "article"])
        if not (note or tag.decomposed):
            tag.decompose()
    whole = len(soup.get_text())
    for tag in soup("form"):
        # Some programs write the whole page into one.
        if not tag.decomposed and 2 * len(tag.get_text()) < whole:
            tag.decompose()
    for tag in soup(["br", "hr"]):
        tag.replace_with("\n")
    for tag in soup("sup"):
        if tag.get_text().strip()[:1].isdigit():
            linked = bool(tag.find("a")) or (tag.parent is not None and tag.parent.name == "a")
            tag.insert(0, " [" if linked else "^")
            tag.append("]" if linked else "")


class _Place(NamedTuple):
    """The nearest block, row and cell that something stands in."""

    block: Tag
    row: Tag | None
    cell: Tag | None


def _places(soup: BeautifulSoup) -> dict[int, _Place]:
    """The place of what stands in each tag, by the tag's id.

    Made from the outside in: where tags are never closed, each is within all before it.
    """
    places = {id(soup): _Place(soup, None, None)}
    for tag in soup(True):
        block, row, cell = places[id(tag.parent)]
        if tag.name in _BLOCKS:
            block = tag
        if tag.name in ("table", "tr"):
            row, cell = tag if tag.name == "tr" else None, None
        if tag.name in _CELLS:
            cell = tag
        places[id(tag)] = _Place(block, row, cell)
    return places


def _rows(soup: BeautifulSoup, places: dict[int, _Place]) -> dict[int, list[Tag]]:
    """The cells of each row that is one, by the row's id; rows that lay out the page are none."""
    rows: dict[int, list[Tag]] = {}
    for cell in soup(_CELLS):
        if (row := places[id(cell)].row) is not None:
            rows.setdefault(id(row), []).append(cell)
    paragraphs = Counter(id(places[id(tag)].cell) for tag in soup("p"))
    layout = {id(places[id(tag.parent)].row) for tag in soup(_NO_CELL)}
    return {
        row: cells
        for row, cells in rows.items()
        if row not in layout
        and len(cells) > 1
        and all(paragraphs[id(cell)] <= _PARAGRAPHS for cell in cells)
    }


def _row(strings: list[NavigableString], cells: list[Tag], places: dict[int, _Place]) -> str:
    """The cells of a row, apart by bars; an empty one keeps its place."""
    texts: dict[int, list[str]] = {id(cell): [] for cell in cells}
    for _, found in groupby(strings, lambda string: id(places[id(string.parent)].block)):
        within = list(found)
        cell = places[id(within[0].parent)].cell
        if text := " ".join("".join(within).split()):
            texts.setdefault(id(cell), []).append(text)
    parts = [" ".join(found) for found in texts.values()]
    return tidy(" | ".join(parts)) if any(parts) else ""


def _text(strings: list[NavigableString], block: Tag) -> str:
    """The strings of a block, with source line ends as spaces unless it is code."""
    keep = block.name == "pre"
    # A line end in the source is a space; that of a <br> is the only one in its string.
    return tidy("".join(one if keep or one == "\n" else one.replace("\n", " ") for one in strings))
