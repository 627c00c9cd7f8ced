"""Plain text and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfinstruct.steps.documents.blocks import Block, tidy

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
# Items, quotes, rows and tags: a line below such is no underline but a rule.
_NO_TITLE = re.compile(r"\s*([-*+>|<]|\d+[.)]\s)")
_TITLE_LINES = 3  # at most; a longer paragraph with a line below it is meant as one
_KEY = re.compile(r"[\w\"'][^:]*:(\s|$)")
_DATA = re.compile(r"(data:[\w/+.;=-]+;base64,)[A-Za-z0-9+/=]+")


def text_blocks(text: str) -> Iterator[Block]:
    """The paragraphs of plain text: what empty lines separate."""
    for number, lines in _paragraphs(text.splitlines(), 1, fences=False):
        yield Block(tidy("\n".join(lines)), place=number)


def markdown_blocks(text: str) -> Iterator[Block]:
    """The headings and paragraphs of Markdown (CommonMark 4.2 to 4.5), its front matter left out.

    Code in fences is one paragraph, whatever its lines look like. Of pictures that are written into
    the text, their data is left out.
    """
    lines = _DATA.sub(r"\1", text).splitlines()
    start = _front_matter(lines)
    body: list[str] = []
    began, fence = start, ""
    title_from = 0  # where in `body` a title may begin
    for number in range(start, len(lines)):
        line = lines[number]
        before, fence = fence, _fence(line, fence)
        heading = None if before or fence else _HEADING.match(line)
        under = None if before or fence else _UNDERLINE.match(line)
        titled = _titled(body, title_from) if under else 0
        if heading is None and not titled:
            body.append(line)
            if before or not line.strip():
                title_from = len(body)
            continue
        title = (
            " ".join(body[len(body) - titled :]) if titled else _bare(heading[2]) if heading else ""
        )
        yield from _body(body[: len(body) - titled], began)
        level = (1 if "=" in line else 2) if titled else len(heading[1]) if heading else 0
        if title := tidy(title):
            yield Block(title, level, number + 1)
        body, began, title_from = [], number + 1, 0
    yield from _body(body, began)


def _bare(title: str) -> str:
    """A heading without the hashes that may close it; they follow a space."""
    title = title.strip()
    bare = title.rstrip("#")
    return title if bare[-1:].strip() else bare


def _fence(line: str, fence: str) -> str:
    """The mark of the code that the next line is in, where `line` was in that of `fence`."""
    if not fence:
        found = _FENCE.match(line)
        return found[1] if found else ""
    bare = line.strip()
    return "" if bare.startswith(fence) and set(bare) == {fence[0]} else fence


def _titled(body: list[str], start: int) -> int:
    """How many of the last lines are a title, if the next one underlines; none of those before."""
    lines = body[start:]
    is_title = 0 < len(lines) <= _TITLE_LINES and not any(map(_NO_TITLE.match, lines))
    return len(lines) if is_title else 0


def _front_matter(lines: list[str]) -> int:
    """Where the text begins: after YAML between two lines of ``---`` at the top."""
    if len(lines) > 1 and lines[0].strip() == "---" and _KEY.match(lines[1]):
        for number, line in enumerate(lines[1:], 1):
            if line.strip() in ("---", "..."):
                return number + 1
    return 0


def _body(lines: list[str], before: int) -> Iterator[Block]:
    for number, paragraph in _paragraphs(lines, before + 1, fences=True):
        yield Block(tidy("\n".join(paragraph)), place=number)


def _paragraphs(lines: list[str], first: int, *, fences: bool) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not empty, each with the number of its first one."""
    run: list[str] = []
    fence = ""
    for number, line in enumerate([*lines, ""], first):
        fence = _fence(line, fence) if fences else ""
        if line.strip() or (fence and number < first + len(lines)):
            run.append(line)
        elif run:
            yield number - len(run), run
            run = []
