"""Small pieces of HTML. Whatever comes from records, settings or files goes through `text`.

Pieces are plain strings of finished HTML. `text` takes out what a page cannot hold (control
characters, lone surrogates) and escapes the rest; `passage` puts foreign text into a block of its
own direction, so that neither markup nor bidirectional controls reach beyond it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from selfinstruct.steps.charts.numbers import count

CUT = 700  # characters of a passage shown at once
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(value: object) -> str:
    """`value` as a string that UTF-8 and HTML can hold; what they cannot hold shows as U+FFFD."""
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", str(value).replace("\r\n", "\n"))


def text(value: object) -> str:
    """`value` as escaped text, safe between tags and in quoted attributes."""
    return escape(clean(value), quote=True)


def passage(value: str, limit: int, cut: int = CUT) -> str:
    """Foreign text as a block: its beginning, and the rest up to `limit` on request."""
    if not value:
        return '<div class="passage empty">empty</div>'
    if len(value) <= cut * 1.2:
        return f'<div class="passage" dir="auto">{_block(value)}</div>'
    space = value.rfind(" ", cut - 60, cut)
    cut = space + 1 if space > 0 else cut
    rest = _block(value[cut:limit])
    if len(value) > limit:
        rest += (
            f'<span class="cut"> ... {count(len(value) - limit)} more characters in run.db</span>'
        )
    return (
        f'<div class="passage" dir="auto">{_block(value[:cut])}<details>'
        f"<summary>Show all ({count(len(value))} characters)</summary>{rest}</details></div>"
    )


def _block(value: str) -> str:
    return escape(clean(value), quote=False)


def paragraph(value: str, kind: str = "") -> str:
    """A paragraph of escaped text."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def not_done(what: str, command: str) -> str:
    """What stands where a stage has left nothing yet."""
    return f'<p class="todo">{text(what)} not done yet. Run <code>{text(command)}</code></p>'


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    foot: Sequence[Sequence[str]] = (),
    marked: Iterable[int] = (),
    kind: str = "",
) -> str:
    """A table of finished HTML cells; columns in `numbers` are set right, `marked` rows stand out.

    The first cell of a row is its heading.
    """
    right, loud = set(numbers), set(marked)

    def row(cells: Sequence[str], kind: str = "") -> str:
        parts = []
        for n, cell in enumerate(cells):
            tag = "td" if n else "th"
            scope = "" if n else ' scope="row"'
            parts.append(f"<{tag}{scope}{_class('num' if n in right else '')}>{cell}</{tag}>")
        return f"<tr{_class(kind)}>{''.join(parts)}</tr>"

    top = "".join(
        f'<th scope="col"{_class("num" if n in right else "")}>{text(name)}</th>'
        for n, name in enumerate(head)
    )
    body = "".join(row(cells, "loud" if n in loud else "") for n, cells in enumerate(rows))
    bottom = f"<tfoot>{''.join(row(cells) for cells in foot)}</tfoot>" if foot else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}">'
        f"<table{_class(kind)}><caption>{text(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody>{bottom}</table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values (finished HTML) as a description list."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


def folded(title: str, *body: str, kind: str = "") -> str:
    """A part that opens on request."""
    return f"<details{_class(kind)}><summary>{text(title)}</summary>{''.join(body)}</details>"


def tag(value: str, kind: str = "") -> str:
    """A short label."""
    return f'<span class="tag {text(kind)}">{text(value)}</span>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
