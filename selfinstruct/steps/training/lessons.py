"""What a student is trained on: all records as tokens, and how long they may be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.steps.training.format import SHOWN_IDS, Examples, StudentFormat, cut
from selfinstruct.steps.training.summary import length_notes

# The share of the records that `max_length: auto` leaves whole.
WHOLE_SHARE = 0.99
SHORTEST = 16


class Lessons(msgspec.Struct, frozen=True):
    """Examples of at most `max_length` tokens, and what the user should know about them."""

    examples: Examples
    max_length: int
    notes: list[str]


def prepare(
    form: StudentFormat,
    rows: Sequence[Mapping[str, Any]],
    max_length: int | Literal["auto"],
    context: int | None,
) -> Lessons:
    """`rows` as tokens for the base that `form` is made for.

    Args:
        form: how they are written.
        rows: see `StudentFormat.tokenize`.
        max_length: tokens of an example at most; "auto" is the length that 99% do not pass.
        context: the positions the base has, None where it has no limit.

    Raises `RecipeError` for more tokens than the base has positions, and `UserError` where nothing
    is left to learn from.
    """
    if max_length != "auto" and context is not None and max_length > context:
        raise RecipeError(
            f"student.max_length: {max_length} is more than the {context} positions that "
            f"{form.base} has; lower it to {context}, or to auto"
        )
    made = form.tokenize(rows)
    chosen = auto_length([one.length for one in made], context)
    limit = chosen if max_length == "auto" else max_length
    examples = cut(made, limit)
    if not examples.kept:
        raise UserError(
            f"student.max_length: with {limit} tokens, no answer of the {len(rows)} training "
            "records is left after its prompt; raise it"
        )
    notes = [*form.notes, *_split_note(rows, len(made) - len(rows)), *_token_note(form, rows)]
    if max_length == "auto":
        least = "the least" if limit == SHORTEST else "99% of the records are no longer"
        why = "all that the base has" if limit == context else least
        notes.append(f"examples have at most {limit} tokens: {why}")
    return Lessons(examples, limit, [*notes, *length_notes(examples, limit)])


def auto_length(lengths: Sequence[int], context: int | None) -> int:
    """The least length that 99% of `lengths` do not pass, within the base's context."""
    ordered = sorted(lengths)
    found = ordered[math.ceil(WHOLE_SHARE * len(ordered)) - 1]
    limit = max(found, SHORTEST)
    return limit if context is None else min(limit, context)


def _split_note(rows: Sequence[Mapping[str, Any]], more: int) -> list[str]:
    """What is said where conversations could not be learned in one piece."""
    if not more:
        return []
    several = sum(
        sum(turn["role"] == "assistant" for turn in row.get("messages") or ()) > 1 for row in rows
    )
    return [
        f"of {several} conversations with several answers, some became an example for each answer "
        f"({more} more than there are records): the base writes earlier turns differently once "
        "they are past, or reads them with an encoder"
    ]


def _token_note(form: StudentFormat, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is said of records whose text the tokenizer reads as tokens that stand for something.

    Left over from another template, or the <s> of a web page, they end or begin a turn.
    """
    added = form.tokenizer.added_tokens_decoder.values()
    special = {*form.tokenizer.all_special_tokens, *(str(one) for one in added if one.special)}
    longest_first = sorted(filter(None, map(str, special)), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    tokens, ids = set[str](), list[str]()
    for row in rows:
        found = {token for text in _texts(row) for token in pattern.findall(text)}
        if found:
            tokens |= found
            ids.append(str(row["id"]))
    if not ids:
        return []
    named = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    return [
        f"the text of {len(ids)} records holds {', '.join(sorted(tokens))}, which {form.base} "
        f"reads as tokens of its own ({named}); take it out, unless it is meant"
    ]


def _texts(row: Mapping[str, Any]) -> list[str]:
    if row.get("messages"):
        return [turn["content"] for turn in row["messages"]]
    return [row["instruction"], row["input"], row["output"]]
