"""Splitting text into words, for every filter and metric that compares texts by their words.

Two tokenizers, in `TOKENIZERS` by name:

- ``alpaca`` is rouge_score's default tokenizer without stemming: lower-case, then runs of a-z and
  0-9. Text in other scripts has no words.
- ``unicode`` gives the same words on ASCII text and words in every other script too: NFKC and
  case-folded, combining marks kept with their letter, one word a character in scripts that put no
  spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and relatives).

All of it takes time linear in the text, whatever the text holds (lone surrogates, a megabyte of
accents), and raises nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import NamedTuple

Tokenizer = Callable[[str], list[str]]

# Scripts without spaces between words, by code point; NFKC has folded the compatibility forms.
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese and its extensions
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf"  # Tai Le, New Tai Lue, Tai Tham
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b"  # ideographic marks and numerals
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # Kana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese characters
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"  # Kana supplements, more Chinese characters
)
# Invisible characters within words: soft hyphen, joiners, direction marks, variation selectors.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
_ALPACA = re.compile("[a-z0-9]+")
# The same for ASCII text, in half the time: what is no word becomes a space.
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
# Signs that are no part of any word and that NFKC turns into none: typographic punctuation and
# spaces, arrows, operators. Most English text that is not ASCII has only these.
_SIGNS = re.compile(
    "[\u00a0\u00a1\u00a7\u00a9\u00ab\u00ac\u00ae\u00b0\u00b1\u00b7\u00bb\u00bf\u00d7\u00f7"
    "\u2000-\u200a\u2010-\u2027\u2030-\u203e\u20ac\u2190-\u21ff\u2200-\u22ff]+"
)
_SHORT = 24  # characters of a piece that is likely to come again
# Outer punctuation that does not change what a sentence asks for.
_EDGES = (
    ".,;:!?\"'`()\u00a1\u00bf\u00ab\u00bb\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u3001\u3002"
)


class _Patterns(NamedTuple):
    """What the text must be scanned for once it is not ASCII."""

    word: re.Pattern[str]
    unspaced: re.Pattern[str]  # one character of a script without spaces, with its marks
    piled_marks: re.Pattern[str]  # the marks past the 30th in a row
    mark_class: str


def alpaca_words(text: str) -> list[str]:
    """The words of `text` exactly as rouge_score's default tokenizer gives them, not stemmed."""
    if text.isascii():
        return text.translate(_ASCII).split()
    return _ALPACA.findall(text.lower())


def unicode_words(text: str) -> list[str]:
    """The words of `text` in any script; those of `alpaca_words` where `text` is ASCII."""
    if text.isascii():
        return text.translate(_ASCII).split()
    plain = _SIGNS.sub(" ", text)
    if not plain.isascii():
        # No word, and no sign that is composed of several, goes over a space.
        pieces = plain.split()
        plain = " ".join(piece if piece.isascii() else _folded_words(piece) for piece in pieces)
    return plain.translate(_ASCII).split()


def _folded_words(piece: str) -> str:
    """The words of a text without spaces, with spaces between."""
    if len(piece) <= _SHORT:
        return _short_words(piece)
    return " ".join(_patterns().word.findall(folded(piece)))


@lru_cache(maxsize=1 << 14)
def _short_words(piece: str) -> str:
    return " ".join(_patterns().word.findall(folded(piece)))


TOKENIZERS: dict[str, Tokenizer] = {"unicode": unicode_words, "alpaca": alpaca_words}


def normal(text: str) -> str:
    """`text` in NFKC, without invisible characters and without more than 30 marks in a row.

    Thirty is the limit of Unicode's stream-safe format (UAX 15): sorting an endless row of marks
    takes quadratic time.
    """
    if text.isascii():
        return text
    text = _patterns().piled_marks.sub("", _INVISIBLE.sub("", text))
    return unicodedata.normalize("NFKC", text)


def folded(text: str) -> str:
    """`text` as `normal` gives it, case-folded."""
    if text.isascii():
        return text.lower()
    return normal(normal(text).casefold())


def count_words(text: str) -> int:
    """Words as people count them: by spaces, and characters / 2 in scripts without spaces.

    On text in other scripts this is ``len(text.split())``, which is what Alpaca counts.
    """
    if text.isascii():
        return len(text.split())
    patterns = _patterns()
    words = characters = 0
    for piece in normal(text).split():
        rest, found = patterns.unspaced.subn(" ", piece)
        characters += found
        words += len(patterns.word.findall(rest)) if found else 1
    return words + (characters + 1) // 2


def same_wording(text: str) -> str:
    """A key that is equal for texts that differ in case, spacing or outer punctuation only.

    Punctuation is taken from the ends of words, not from inside: "2+2" and "2-2", or "3.14" and
    "314", are different tasks. Text of punctuation alone is its own key.
    """
    pieces = (piece.strip(_EDGES) for piece in folded(text).split())
    return " ".join(filter(None, pieces)) or " ".join(text.split())


def mark_class() -> str:
    """The combining marks (Mn, Mc), written for the inside of a regex character class."""
    return _patterns().mark_class


@cache
def _patterns() -> _Patterns:
    """Compiled when the first text that is not ASCII comes: finding the marks takes 10 ms."""
    marks = _ranges("Mn", "Mc")
    unspaced = rf"(?=[^\W_])[{_UNSPACED}][{marks}]*+"
    return _Patterns(
        word=re.compile(rf"{unspaced}|(?:[^\W_{_UNSPACED}][{marks}]*+)++"),
        unspaced=re.compile(unspaced),
        piled_marks=re.compile(rf"(?<=[{marks}]{{30}})[{marks}]+"),
        mark_class=marks,
    )


def _ranges(*categories: str) -> str:
    """The characters of these Unicode categories as ranges of a regex character class."""
    ranges: list[list[int]] = []
    for point in range(0x300, 0x1F000):  # past it are variation selectors only
        if unicodedata.category(chr(point)) in categories:
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1][1] = point
            else:
                ranges.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def words_as_letters(texts: Iterable[str]) -> list[str]:
    """Each text with one character for each of its `unicode_words`, the same for the same word.

    With 2 lcs / (m + n), the ROUGE-L F1 of two texts is the normalised Indel similarity of these.
    """
    alphabet: dict[str, str] = {}
    return [
        # Past the surrogates, which are no characters of their own.
        "".join(
            alphabet.setdefault(word, chr(0xE000 + len(alphabet) % 0x100000))
            for word in unicode_words(text)
        )
        for text in texts
    ]
