"""What the rules of `steps.roots` know of English words: classes, verb forms, plurals.

The lists are plain text in `selfinstruct/steps/data`: verbs.txt, nouns.txt, adjectives.txt,
plurals.txt and function_words.toml. They are read once, at first use.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files

_ADJECTIVE = re.compile(r".{2}(?:ful|ive|ous|less|able|ible|ic|al|ary|ish|est)$|.*-.*-.*")
_CONSONANT_Y = re.compile(r"[^aeiou]y$")
_DOUBLING = re.compile(r"[^aeiou][aeiou][^aeiouwxy]$")


class English:
    """The word lists. `forms` maps every form of every known verb to its lemma."""

    def __init__(self) -> None:
        data = files("selfinstruct.steps") / "data"
        verbs, nouns, adjectives, plurals = (
            _lines((data / f"{name}.txt").read_text("utf-8"))
            for name in ("verbs", "nouns", "adjectives", "plurals")
        )
        classes = tomllib.loads((data / "function_words.toml").read_text("utf-8"))
        self.asking = re.compile(rf"(?:{'|'.join(classes.pop('asking'))}) ")
        self._classes = {name: frozenset(text.split()) for name, text in classes.items()}
        self._nouns = frozenset(nouns)
        self._plurals = dict(line.split() for line in plurals)
        self.adjectives = frozenset(adjectives)
        self.verbs = frozenset(line.split()[0] for line in verbs)
        self.forms = {lemma: lemma for lemma in self.verbs}
        self.participles: set[str] = set()
        for line in verbs:
            lemma, *irregular = line.split()
            inflected = [*irregular, *_inflected(lemma, "ed"), *_inflected(lemma, "ing")]
            self.participles.update(form for form in inflected if form not in self.verbs)
            for form in (*inflected, _third_person(lemma)):
                self.forms.setdefault(form, lemma)

    def is_a(self, word: str, *classes: str) -> bool:
        """Whether `word` belongs to one of the classes of `function_words.toml`."""
        return any(word in self._classes[name] for name in classes)

    def base(self, word: str) -> bool:
        """Whether `word` is a known verb's base form, "re-write" for "rewrite" included."""
        return word in self.verbs or word.replace("-", "") in self.verbs

    def lemma(self, verb: str) -> str:
        """The lemma of any form of a verb; one that is not known is taken as it is."""
        return self.forms.get(verb) or self.forms.get(verb.replace("-", "")) or verb

    def participle(self, word: str) -> bool:
        """Whether `word` looks like a participle and is not known as a noun."""
        if word in self._nouns:
            return False
        return word in self.participles or (len(word) > 5 and word.endswith(("ing", "ed")))

    def modifier(self, word: str) -> bool:
        """Whether `word` looks like an adjective or a participle."""
        if word in self._nouns:
            return False
        return word in self.adjectives or self.participle(word) or bool(_ADJECTIVE.match(word))

    def adverb(self, word: str) -> bool:
        """Whether `word` looks like an adverb in -ly, or is one of the usual ones."""
        if word.endswith("ly") and len(word) > 4:
            return not (word in self._nouns or word in self.adjectives or word in self.verbs)
        return self.is_a(word, "adverbs")

    def singular(self, noun: str) -> str:
        """The singular of `noun`, which may be one already."""
        if noun in self._plurals:
            return self._plurals[noun]
        if len(noun) < 4 or not noun.endswith("s") or noun.endswith(("ss", "us", "is")):
            return noun
        if noun.endswith("ies"):
            return noun[:-3] + "y"
        if noun.endswith(("sses", "shes", "ches", "xes")):
            return noun[:-2]
        return noun[:-1]


@cache
def english() -> English:
    """The word lists, read at the first call."""
    return English()


def _third_person(lemma: str) -> str:
    if _CONSONANT_Y.search(lemma):
        return lemma[:-1] + "ies"
    return lemma + ("es" if lemma.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def _inflected(lemma: str, ending: str) -> list[str]:
    """The regular forms in -ed or -ing; both spellings where the last consonant may double."""
    if ending == "ed" and _CONSONANT_Y.search(lemma):
        return [lemma[:-1] + "ied"]
    if ending == "ing" and lemma.endswith("ie"):
        return [lemma[:-2] + "ying"]
    if lemma.endswith("e") and (ending == "ed" or not lemma.endswith(("ee", "oe", "ye"))):
        return [lemma[:-1] + ending]
    doubled = [lemma + lemma[-1] + ending] if _DOUBLING.search(lemma) else []
    return [lemma + ending, *doubled]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]
