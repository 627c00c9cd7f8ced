"""Unfinished outputs: cut off by the limit on tokens, or given up."""

from __future__ import annotations

import re

from selfinstruct.steps.rules.code import looks_like_code
from selfinstruct.steps.rules.view import Rule, View, quoted

_BARE_ITEM = re.compile(r"\n[ \t]{0,8}(?:[-*\u2022]|\d{1,3}[.)]|[a-zA-Z][.)])[ \t]{0,8}$")
_SENTENCE_END = re.compile(r"[^\W\d_][.?!] [^\W\d_]")
_PROSE_WORDS = 40  # of the last paragraph, from which on it has to end as a sentence does
_PHRASE_WORDS = 8  # from which on an output is more than the word that was asked for


def unfinished(view: View) -> str:
    """An output that stops in mid-sentence, before a list's item, or inside a block of code.

    An open fence of code, an item without text, or a long last paragraph of sentences that ends
    with a comma. A missing full stop alone is no sign: people leave it out.
    """
    text = view.output.rstrip()
    if text.count("```") % 2:
        return "an open block of code"
    if _BARE_ITEM.search(text[-24:]):
        return f"an item without text at the end: {quoted(text[-24:].strip())}"
    last = text[-4000:].rpartition("\n")[2]
    if last.endswith(",") and len(last.split()) >= _PROSE_WORDS and _SENTENCE_END.search(last):
        return "" if looks_like_code(view) else f"ends with {quoted(text[-30:])}"
    return ""


def hanging(asks: Rule) -> Rule:
    """A rule for outputs that end, without punctuation, with a word that no sentence ends with.

    `asks` finds the word. Outputs of a few words are left alone: the word may be the answer.
    """

    def look(view: View) -> str:
        found = asks(view)
        if not found or len(view.output.split()) < _PHRASE_WORDS or looks_like_code(view):
            return ""
        return f"ends with {found}"

    return look
