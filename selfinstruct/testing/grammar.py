"""A small grammar that writes plausible instructions, inputs and answers.

It stands in for a language model where none can run: every draw comes from the `random.Random` it
is given, so a text is a function of that generator's seed alone. The vocabulary is wide enough for
tens of thousands of instructions that differ by more than a word or two.
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

from selfinstruct.testing import vocabulary as words

_AN = re.compile(r"\ba(?= [aeio])")


class Task(NamedTuple):
    """An instruction, its input ("" where it needs none) and an answer."""

    instruction: str
    input: str
    output: str


def thing(rng: Random) -> str:
    """A noun with a quality, such as "coastal lighthouse"."""
    return f"{rng.choice(words.QUALITIES)} {rng.choice(words.NOUNS)}"


def sentence(rng: Random) -> str:
    """One sentence of advice."""
    return f"{rng.choice(words.OPENINGS)} {rng.choice(words.ADVICE)}, {rng.choice(words.REASONS)}."


def paragraph(rng: Random, about: str, sentences: int) -> str:
    """An answer of `sentences` sentences of advice, opened by what it is `about`."""
    parts = [f"On the {about}:" if about else "In short:"]
    parts.extend(sentence(rng) for _ in range(sentences))
    if rng.random() < 0.5:
        parts.append(rng.choice(words.CLOSINGS))
    return " ".join(parts)


def passage(rng: Random) -> str:
    """Two sentences of somebody's text, as the input of a task."""
    who = rng.choice(words.ACTORS)
    first = f"{who[0].upper()}{who[1:]} wanted to {rng.choice(words.VERBS)} the {thing(rng)}"
    return f"{first} {rng.choice(words.TIMES)}. {sentence(rng)}"


def _slots(rng: Random) -> dict[str, str]:
    choice = rng.choice
    return {
        "actor": choice(words.ACTORS),
        "actor2": choice(words.ACTORS),
        "actor3": choice(words.ACTORS),
        "adj": choice(words.ADJECTIVES),
        "adj2": choice(words.ADJECTIVES),
        "avoid": choice(words.AVOIDED),
        "change": choice(words.CHANGES),
        "form": choice(words.FORMS),
        "form2": choice(words.FORMS),
        "label": choice(words.LABELS),
        "label2": choice(words.LABELS),
        "n": choice(words.NUMBERS),
        "purpose": choice(words.PURPOSES),
        "thing": thing(rng),
        "thing2": thing(rng),
        "thing3": thing(rng),
        "verb": choice(words.VERBS),
        "when": choice(words.TIMES),
        "when2": choice(words.TIMES),
    }


def task(rng: Random) -> Task:
    """A new instruction with its input, where its kind needs one, and its answer."""
    has_input = rng.random() < 0.35
    lead = rng.choice(words.TEXT_LEADS if has_input else words.LEADS)
    text = f"{lead} {rng.choice(words.CLAUSES)}"
    if rng.random() < 0.8:
        text += f", {rng.choice(words.TAILS)}"
    slots = _slots(rng)
    instruction = _AN.sub("an", text.format_map(slots)) + rng.choice(words.ENDINGS)
    given = passage(rng) if has_input else ""
    return Task(instruction, given, paragraph(rng, slots["thing"], rng.randint(1, 3)))
