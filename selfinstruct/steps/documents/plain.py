"""Plain text and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfinstruct.steps.documents.blocks import Block, tidy

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def text_blocks(text: str) -> Iterator[Block]:
    """The paragraphs of plain text: what empty lines separate."""
    for number, lines in _paragraphs(text.splitlines(), 1):
        yield Block(tidy("\n".join(lines)), place=number)


def markdown_blocks(text: str) -> Iterator[Block]:
    """The headings and paragraphs of Markdown (CommonMark 4.2, 4.3), its front matter left out.

    Code in fences is one paragraph, whatever its lines look like.
    """
    lines = text.splitlines()
    start = _front_matter(lines)
    body: list[str] = []
    began, fence = start, ""
    for number in range(start, len(lines)):
        line = lines[number]
        if fence:
            body.append(line)
            fence = "" if line.strip().startswith(fence) else fence
            continue
        if found := _FENCE.match(line):
            fence = found[1]
        heading = _HEADING.match(line)
        under = _UNDERLINE.match(line) if body and body[-1].strip() else None
        if heading is None and under is None:
            body.append(line)
            continue
        title = body.pop() if under is not None else heading[2] if heading else ""
        yield from _body(body, began)
        level = (1 if under[1][0] == "=" else 2) if under else len(heading[1]) if heading else 0
        if title := tidy(title):
            yield Block(title, level, number + 1)
        body, began = [], number + 1
    yield from _body(body, began)


def _front_matter(lines: list[str]) -> int:
    """Where the text begins: after YAML between two lines of ``---`` at the top."""
    if lines and lines[0].strip() == "---":
        for number, line in enumerate(lines[1:], 1):
            if line.strip() in ("---", "..."):
                return number + 1
    return 0


def _body(lines: list[str], before: int) -> Iterator[Block]:
    for number, paragraph in _paragraphs(lines, before + 1):
        yield Block(tidy("\n".join(paragraph)), place=number)


def _paragraphs(lines: list[str], first: int) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not empty, each with the number of its first one."""
    run: list[str] = []
    fence = ""
    for number, line in enumerate([*lines, ""], first):
        if found := _FENCE.match(line):
            fence = "" if fence and found[1].startswith(fence) else fence or found[1]
        if line.strip() or (fence and number < first + len(lines)):
            run.append(line)
        elif run:
            yield number - len(run), run
            run = []
