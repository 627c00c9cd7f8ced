"""Training examples for people, what is learned in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfinstruct.steps.training.masks import Kind, Shown

STYLES: dict[Kind, str] = {
    "prompt": "dim",
    "learned": "bold green",
    "special": "dim reverse",
    "learned special": "bold green reverse",
}


def print_masks(shown: list[Shown]) -> None:
    """Print examples: what is learned in green, special tokens reversed, the rest dim."""
    from rich.text import Text

    from selfinstruct.cli.common import console

    out = console()
    for example in shown:
        share = f"{example.learned} of {example.length} tokens learned"
        out.print(Text(f"--- {example.id}: {share}", style="cyan"))
        text = Text()
        for piece in example.pieces:
            text.append(piece.text, style=STYLES[piece.kind])
        out.print(text)
