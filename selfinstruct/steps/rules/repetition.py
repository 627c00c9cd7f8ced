"""Repetition: an output that goes round in circles, as a model does that has lost the thread."""

from __future__ import annotations

import zlib

from selfinstruct.steps.rules.view import View, quoted

GRAM = 4  # words that must recur at the same distance
MAX_WORDS = 100_000  # looked at
MIN_LOOP_WORDS = 20  # a loop's length in all
MIN_ROUNDS = 4  # how often its words come
MIN_BYTES = 400  # from which on the compressed size says something
MAX_BYTES = 1_000_000  # compressed at most
RATIO = 0.1  # compressed size over size, at or below which a text holds next to nothing


def repetition(view: View) -> str:
    """A phrase that comes at least `MIN_ROUNDS` times in a row, or text that zlib packs away.

    One pass over the words: a loop shows as word 4-grams that each came the same distance before.
    The ratio finds what loops with small changes, and text without spaces.
    """
    words = view.folded["output"].split(" ")
    if len(words) >= MIN_LOOP_WORDS:
        found = _loop(words[:MAX_WORDS])
        if found:
            return found
    raw = view.output[:MAX_BYTES].encode("utf-8", "surrogatepass")
    if len(raw) < MIN_BYTES:
        return ""
    ratio = len(zlib.compress(raw, 6)) / len(raw)
    return f"{len(raw)} bytes that pack to {ratio:.0%}" if ratio <= RATIO else ""


def _loop(words: list[str]) -> str:
    last: dict[tuple[str, ...], int] = {}
    distance = begin = 0
    for at, gram in enumerate(zip(*(words[n:] for n in range(GRAM)), strict=False)):
        back = at - last.get(gram, at)
        last[gram] = at
        if not back or back != distance:
            distance, begin = back, at
            continue
        size = at - begin + GRAM + distance
        if size >= max(MIN_LOOP_WORDS, MIN_ROUNDS * distance):
            phrase = " ".join(words[at + GRAM - distance : at + GRAM])
            if any(character.isalpha() for character in phrase):  # rows of a table have none
                return f"{quoted(phrase)} {size // distance} times in a row"
    return ""
