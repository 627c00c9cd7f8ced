"""HTML: what a reader sees of a page, without its navigation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from selfinstruct.core.errors import MissingDependency
from selfinstruct.steps.documents.blocks import Block, tidy

if TYPE_CHECKING:
    from bs4.element import NavigableString, Tag

# Never text of the page itself.
_LEFT_OUT = ["script", "style", "template", "noscript", "nav", "footer", "aside", "form", "svg"]
# What begins on a line of its own; the rows of a table stay together.
_BLOCKS = frozenset({
    "address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt",
    "figcaption", "h1", "h2", "h3", "h4", "h5", "h6", "header", "li", "main", "ol", "p", "pre",
    "section", "summary", "table", "td", "th", "tr", "ul",
})  # fmt: skip
_CELLS = frozenset({"td", "th"})


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
    for tag in soup(_LEFT_OUT):
        tag.decompose()
    for tag in soup("br"):
        tag.replace_with("\n")
    strings = [
        string
        for string in (soup.body or soup).descendants
        # Comments, declarations and CDATA are strings too.
        if isinstance(string, NavigableString) and not isinstance(string, PreformattedString)
    ]
    for block, found in groupby(strings, lambda string: _block(string, with_cells=False)):
        text = _text(list(found), keep=block.name == "pre")
        if text:
            heading = len(block.name) == 2 and block.name[0] == "h" and block.name[1].isdigit()
            level = int(block.name[1]) if heading else 0
            yield Block(text, level, block.sourceline or 0)


def _block(string: NavigableString, *, with_cells: bool) -> Tag:
    """The block that `string` stands in: the nearest one, or the row around its cell."""
    around = list(string.parents)  # up to the page itself, so at least one
    for tag in around:
        if tag.name in _BLOCKS and (with_cells or tag.name not in _CELLS or not _row(tag)):
            return tag
    return around[-1]


def _row(cell: Tag) -> bool:
    return cell.find_parent("tr") is not None


def _text(strings: list[NavigableString], *, keep: bool) -> str:
    """The strings of a block, cells apart by bars, source line ends as spaces unless `keep`."""
    parts = []
    for _, found in groupby(strings, lambda string: id(_block(string, with_cells=True))):
        # A line end in the source is a space; that of a <br> is the only one in its string.
        pieces = (one if keep or one == "\n" else one.replace("\n", " ") for one in found)
        if part := tidy("".join(pieces)):
            parts.append(part)
    return " | ".join(parts)
