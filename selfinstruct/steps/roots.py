"""Root verb and object of an instruction, by rules: what Self-Instruct's Figure 3 counts.

Wang et al. 2023 (arXiv 2212.10560, section 3.2) parse each instruction and count "the verb closest
to the root" with "its first direct noun object". No parser that works offline is small enough to
ship, so this reads English by rule, with the word lists of `steps.english`:

- *Imperatives* give their first verb: "Write a short poem" is (write, poem). What leads in is
  skipped: politeness ("Please", "Can you", "I want you to", "Help me"), conditions ("Given the
  following text, ...", "In one sentence, ...") and sentences before it that ask nothing.
- *Questions* give the verb that is asked about: "How do I bake bread?" is (bake, bread). A question
  whose only verb is a form of "be" has neither: an auxiliary is no root verb in the paper's parse.
- *Objects* are common nouns in the singular. As in the paper, a pronoun ("summarize it"), a name, a
  clause ("explain why ...") and the noun behind a preposition ("think of a word") are no direct
  objects: the object is then None. Other languages give (None, None).
"""

from __future__ import annotations

import re

from selfinstruct.steps.english import english

LONGEST = 2000  # characters looked at: an instruction's verb stands near its beginning

_TOKEN = re.compile(r"[^\W_]+(?:['/-][^\W_]+)*'?|[^\w\s]|_")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_QUOTED = re.compile(r'"[^"\n]*"|(?<!\w)\'[^\'\n]+\'(?!\w)')
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|Mr|Mrs|Dr|St|U\.S)\.", re.IGNORECASE)
_NUMBERING = re.compile(r"^\W*(?:\d+[.)]\s|[a-zA-Z](?:\)|[.]\s))\s*")
_PLAIN = str.maketrans("\u2019\u2018\u201c\u201d`\u2013\u2014", '\'\'""",,')
_NOUN = re.compile(r"[a-z]{2,}(?:-[a-z]+)*$")

Roots = tuple[str | None, str | None]


def root_verb_object(instruction: str) -> Roots:
    """The root verb's lemma and the singular of its object's head noun; None for what is not there.

    The object is never given without a verb. Pure, and about 30 us for a sentence.
    """
    plain = _QUOTED.sub('"', instruction[:LONGEST].translate(_PLAIN))
    for text in _SENTENCE_END.split(_ABBREVIATION.sub(r"\1", plain)):
        sentence = _Sentence(_NUMBERING.sub("", text))
        start = _start(sentence)
        if start is not None:
            roots = _question(sentence, start) if _asks(sentence, start) else None
            roots = roots or (english().lemma(sentence[start]), _object(sentence, start + 1))
            if roots[0] is not None:
                return roots
    return None, None


class _Sentence:
    """The tokens of a sentence in lower case; a quotation is one `"`, no token is an empty text."""

    def __init__(self, text: str) -> None:
        tokens = _TOKEN.findall(text)
        self.words = [token.lower() for token in tokens]
        self.capital = [token[0].isupper() for token in tokens]
        letters = sum(token[0].isalpha() for token in tokens)
        if sum(self.capital) > max(2, 0.6 * letters):  # a title: capitals say nothing
            self.capital = [False] * len(tokens)

    def __getitem__(self, n: int) -> str:
        return self.words[n] if 0 <= n < len(self.words) else ""

    def __len__(self) -> int:
        return len(self.words)


# -- where it begins ---------------------------------------------------------------------------


def _start(s: _Sentence) -> int | None:
    """Where the verb or the question begins, or None where the sentence asks nothing."""
    en = english()
    at = _skip_openers(s, 0)
    if _asks(s, at) or _imperative(s, at):
        return at
    # A condition ("Given ...") or a statement ("You are given ...") may lead to it.
    leads = en.is_a(s[at], "prepositions", "lead_ins", "pronouns", "determiners", "subjects")
    return _after_condition(s, at + 1) if leads or en.participle(s[at]) else None


def _skip_openers(s: _Sentence, at: int) -> int:
    """Skip politeness, labels ("Question:"), adverbs and ways of asking, as often as they come."""
    en = english()
    while at < len(s):
        asking = en.asking.match(" ".join(s.words[at : at + 12]) + " ")
        whether = en.is_a(s[at], "modals") and s[at + 1] in ("i", "we")  # no request, a question
        if asking and not whether:
            at += len(asking.group().split())
        elif en.is_a(s[at], "labels") and s[at + 1] in (":", "-"):
            at += 2
        elif en.is_a(s[at], "openers") or en.adverb(s[at]) or not s[at][0].isalnum():
            at += 1
        else:
            break
    return at


def _asks(s: _Sentence, at: int) -> bool:
    """Whether a question begins here."""
    if s[at] in ("do", "have"):  # "Do the following" is no question
        return s[len(s) - 1] == "?"
    return english().is_a(s[at], "questions", "contracted_questions", "be", "modals", "have")


def _imperative(s: _Sentence, at: int) -> bool:
    """Whether a verb in its base form begins here, and does not serve as a noun."""
    en = english()
    word, following = s[at], s[at + 1]
    if en.is_a(word, "not_imperative", "prepositions") or en.is_a(following, "be", "modals"):
        return False
    if en.base(word):
        return following != "of" or word in ("think", "dream")
    known = en.is_a(word, "determiners", "breaks", "pronouns", "lead_ins") or word in en.forms
    return not known and bool(_NOUN.match(word)) and en.is_a(following, "articles", "recipients")


def _after_condition(s: _Sentence, at: int) -> int | None:
    """The verb behind a comma, right before an article ("... find the word"), or asked for."""
    en, objects = english(), ("articles", "recipients", "questions")
    if en.is_a(s[at], "questions"):
        return at  # "In which year ..."
    for n in range(at, len(s)):
        if s[n] in (",", ":", ";"):
            begin = _skip_openers(s, n + 1)
            if _asks(s, begin) or _imperative(s, begin):
                return begin
    for n in range(at + 1, len(s)):
        subject = en.is_a(s[n - 1], "determiners", "prepositions", "breaks", "pronouns")
        if s[n] in en.verbs and not subject and en.is_a(s[n + 1], *objects):
            return n
    return _after_asked_to(s, at)


def _after_asked_to(s: _Sentence, at: int) -> int | None:
    """The verb of "... and asked to replace a word"."""
    en = english()
    places = range(at + 2, len(s))
    asked = (n for n in places if s[n - 1] == "to" and en.is_a(s[n - 2], "asked"))
    return next((n for n in asked if s[n] in en.verbs), None)


# -- questions ---------------------------------------------------------------------------------


def _question(s: _Sentence, at: int) -> Roots:
    """Verb and object of a question that begins at `at`."""
    en = english()
    for n in range(at, min(len(s), at + 12)):
        if s[n] == "to" and n > at and s[n + 1] in en.forms:  # "how to bake"
            return en.forms[s[n + 1]], _object(s, n + 2)
        if en.is_a(s[n], "be", "contracted_questions"):
            bare = n == at or (n == at + 1 and s[at] in ("what", "who", "which"))
            return _passive(s, n + 1, near=bare and en.is_a(s[at], "questions")), None
        if en.is_a(s[n], "modals"):
            return _with_auxiliary(s, at, n)
        if en.is_a(s[n], "have"):
            return _perfect(s, at, n)
        finite = n > at and s[n] in en.forms and s[at] not in ("how", "why", "when", "where")
        if finite and not any(en.is_a(s[k], "be", "modals") for k in range(n + 1, n + 4)):
            return en.forms[s[n]], _object(s, n + 1)
    return None, None


def _with_auxiliary(s: _Sentence, at: int, auxiliary: int) -> Roots:
    """For "What does X mean" and "Which book did he write": the verb follows the subject."""
    en = english()
    for n in range(_subject_end(s, auxiliary + 1), len(s)):
        if s[n] in ("be", "been"):
            return _passive(s, n + 1, near=True), None
        if s[n] in en.verbs and not en.is_a(s[n - 1], "determiners", "prepositions"):
            noun = _object(s, n + 1)
            asked_for = auxiliary > at + 1 and not en.is_a(s[at - 1], "prepositions")
            if noun is None and asked_for:  # "which book did he write"
                noun = _noun_phrase(s, at + 1)[0]
            return en.forms[s[n]], noun
    return None, None


def _perfect(s: _Sentence, at: int, auxiliary: int) -> Roots:
    """For "How has it changed"; a plain "have" ("Which planet has rings") is the verb itself."""
    en = english()
    for n in range(auxiliary + 1, len(s)):
        if s[n] in en.participles and not s[n].endswith("ing"):
            return en.forms[s[n]], _object(s, n + 1)
    return ("have", _object(s, auxiliary + 1)) if auxiliary > at else (None, None)


def _subject_end(s: _Sentence, at: int) -> int:
    """The first place where the verb may be, the subject being at least one word."""
    en = english()
    while en.is_a(s[at], "determiners") or s[at] == "not":
        at += 1
    ends = not s[at + 1][:1].isalnum() or en.is_a(
        s[at + 1], "determiners", "prepositions", "breaks"
    )
    if s[at] == "be" or (s[at] in en.verbs and ends and not en.is_a(s[at - 1], "determiners")):
        return at  # "what can be made", "who can play a game": the question word is the subject
    at += 1
    while s[at] in en.verbs and s[at + 1] in en.verbs:
        at += 1  # "does climate change affect": the last of them is the verb
    return at


def _passive(s: _Sentence, at: int, near: bool) -> str | None:
    """The verb of a passive ("How is glass made?"), None for a plain "be".

    `near`: the participle must stand at `at`, as in "What is used to cut glass?".
    """
    en = english()
    if near:
        return en.forms[s[at]] if s[at] in en.participles and s[at][-3:] != "ing" else None
    for n in range(at + 1, len(s)):
        if s[n] in ("to", "that", "which", "because", "if"):
            return None
        ends = en.is_a(s[n + 1], "prepositions") or not s[n + 1][:1].isalnum()
        if s[n] in en.participles and ends and not s[n].endswith("ing"):
            return en.forms[s[n]]
    return None


# -- objects -----------------------------------------------------------------------------------


def _object(s: _Sentence, at: int) -> str | None:
    """The head noun of the direct object that begins at `at`, or None."""
    while (skipped := _before_object(s, at)) > 0:
        at += skipped
    if s[at] in ("in", "for", "with", "from", "using", "on"):
        _, at = _noun_phrase(s, at + 1)  # "describe in detail the idea"
        if not english().is_a(s[at], "articles"):
            return None
    return _noun_phrase(s, at)[0]


def _before_object(s: _Sentence, at: int) -> int:
    """How many words at `at` stand between a verb and its object."""
    en = english()
    word, following = s[at], s[at + 1]
    if word in ("and", "or", ",") and following in en.verbs:
        return 2  # "compare and contrast the styles"
    if word in ("to", "for") and en.is_a(following, "recipients"):
        return 2  # "explain to me the idea"
    if (word, following) in (("at", "least"), ("at", "most"), ("up", "to")):
        return 2  # "list at least three fruits"
    if en.is_a(word, "particles") or en.adverb(word) or (s[at - 1], word) == ("fill", "in"):
        return 1
    more = following[:1].isalnum() or following == '"'
    return 1 if en.is_a(word, "recipients") and more else 0


def _noun_phrase(s: _Sentence, at: int) -> tuple[str | None, int]:
    """The head noun, singular, of the phrase that begins at `at`, and where the phrase ends."""
    en = english()
    found: list[int] = []
    n = at
    while n < len(s):
        word = s[n]
        noun_seen = not all(en.modifier(s[k]) for k in found)
        if word in (",", "and", "or", "but") and found and not noun_seen:
            pass  # "a short and funny story"
        elif word == "of" and not found and n > at and en.is_a(s[n - 1], "quantifiers"):
            pass  # "some of the words"
        elif word.endswith(("'s", "s'")):
            found.clear()  # "the author's view"
        elif en.is_a(word, "determiners") or word.isdigit() or en.adverb(word):
            if noun_seen:
                break  # "the text clearly", "explain the rule the text follows"
        elif not word[0].isalnum() or en.is_a(word, "breaks", "prepositions"):
            break
        elif noun_seen and en.participle(word):
            break  # "a story describing ..."
        else:
            found.append(n)
        n += 1
    return _head(s, at, n, found), n


def _head(s: _Sentence, at: int, end: int, found: list[int]) -> str | None:
    """The last of the words at `found` that is a common noun."""
    en = english()
    nouns = [k for k in found if not en.participle(s[k])]
    before = s.words[at : found[0]] if found else []
    if found and not nouns and before:  # "the layering", but not "the following"
        last = s[found[-1]]
        return last if last.endswith("ing") and last != "following" else None
    if len(nouns) > 1 and en.is_a(s[end], "be", "modals", "have"):
        nouns.pop()  # "two ways companies can grow"
    counted = any(en.is_a(word, "numbers") or word.isdigit() for word in before)  # "a Haiku"
    for k in reversed(nouns):
        if s[k] in en.adjectives and len(nouns) > 1:
            continue  # "make the sentence shorter"
        if (s.capital[k] and not counted) or not _NOUN.match(s[k]):
            continue
        superlative = s[k] in en.adjectives and s[k].endswith("est")
        return None if superlative or en.is_a(s[k], "pronouns") else en.singular(s[k])
    return None
