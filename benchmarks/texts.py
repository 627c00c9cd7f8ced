"""The texts that the filters are measured on: real instruction data, or made-up rows in its place.

`$SELFINSTRUCT_DATA` names a folder with `alpaca_data.json`, Stanford Alpaca's 52,002 rows as
published; without it `shared/data` next to the checkout is looked at. Where neither is there, rows
of about the same lengths are made up, and figures say so: `Texts.real` is false.
"""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path

ALPACA = "alpaca_data.json"
ALPACA_ROWS = 52_002
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Texts:
    """Rows with instruction, input and output; `real` where they are Alpaca's."""

    rows: list[dict[str, str]]
    real: bool


def data_folder() -> Path | None:
    """The folder of the real data, or None."""
    named = os.environ.get("SELFINSTRUCT_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for folder in [Path(named)] if named else [beside]:
        if (folder / ALPACA).is_file():
            return folder
    return None


def alpaca(count: int = ALPACA_ROWS) -> Texts:
    """The first `count` of Alpaca's rows, or as many made-up ones."""
    folder = data_folder()
    if folder is None:
        return Texts(made_up(count), real=False)
    rows: list[dict[str, str]] = json.loads((folder / ALPACA).read_text("utf-8"))
    return Texts(rows[:count], real=True)


def made_up(count: int, seed: int = 1) -> list[dict[str, str]]:
    """Rows of made-up words, whose frequencies fall off as those of real words do."""
    rng = random.Random(seed)
    shapes = {"instruction": (5, 16), "input": (0, 12), "output": (5, 70)}
    return [
        {name: " ".join(_words(rng, rng.randint(*span))) for name, span in shapes.items()}
        for _ in range(count)
    ]


def _words(rng: random.Random, count: int) -> list[str]:
    return [f"w{int(20_000 ** rng.random())}" for _ in range(count)]


def perturbed(text: str, rng: random.Random) -> str:
    """A copy of `text` with a few words replaced, dropped, doubled or moved."""
    words = text.split()
    for _ in range(rng.randint(0, max(1, len(words) // 3))):
        at = rng.randrange(len(words)) if words else 0
        what = rng.randrange(4)
        if not words or what == 0:
            words.insert(at, rng.choice(("new", "the", "a", f"x{rng.randrange(10**6)}")))
        elif what == 1:
            del words[at]
        elif what == 2:
            words.insert(at, words[at])
        else:
            words.insert(rng.randrange(len(words)), words.pop(at))
    return " ".join(words)


def sentences(rows: list[dict[str, str]], count: int, seed: int = 1) -> list[str]:
    """`count` texts: the sentences of `rows`, then perturbed copies of them, all shuffled."""
    rng = random.Random(seed)
    found = [
        piece
        for row in rows
        for name in ("instruction", "input", "output")
        for piece in _SENTENCE.split(row[name])
        if len(piece.split()) >= 3
    ]
    rng.shuffle(found)
    found = found[: count * 3 // 4]  # a quarter and more are copies
    found += [perturbed(rng.choice(found), rng) for _ in range(count - len(found))]
    rng.shuffle(found)
    return found
