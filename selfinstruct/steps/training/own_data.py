"""The user's own training data: conversations, and pairs of a better and a worse answer.

Any kind of file that seeds may be in: JSON lines, a JSON list, Parquet, Arrow, or a folder of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import SeedError
from selfinstruct.steps.seeds.faults import fault, kind_of
from selfinstruct.steps.seeds.files import data_files
from selfinstruct.steps.seeds.layouts import check_turns, from_the_question, read_turns
from selfinstruct.steps.seeds.rows import iter_rows

Turn = dict[str, str]


def read_conversations(path: str) -> list[dict[str, Any]]:
    """The conversations in `path`, as rows with `id` and `messages`.

    A row has `messages` (or `conversations`): a list of `role` and `content`, with at least one
    answer of the assistant to a user; what follows the last answer, or comes before the first
    question, is not learned. Raises `SeedError` naming file and line.
    """

    def conversation(value: dict[str, Any], where: str) -> dict[str, Any]:
        field = "messages" if "messages" in value else "conversations"
        turns = from_the_question(_turns(value.get(field), field, where))
        if not any(turn["role"] == "assistant" for turn in turns):
            raise fault(where, f'field "{field}" has no answer of the assistant to learn')
        return {"messages": turns}

    return list(_read(path, conversation))


def read_pairs(path: str) -> list[dict[str, Any]]:
    """The preference pairs in `path`: rows with `id`, a question, `chosen` and `rejected`.

    The question is `prompt` (text, or a list of turns that ends with a question), or `instruction`
    and `input`; it comes back as `messages`, or as the latter two. An answer is text, or a list
    with the assistant's turn last; where that list holds the question too, as TRL's do, there need
    be no `prompt`. Raises `SeedError` naming file and line.
    """

    def pair(value: dict[str, Any], where: str) -> dict[str, Any]:
        chosen, before = _answer(value, "chosen", where)
        rejected, _ = _answer(value, "rejected", where)
        if chosen == rejected:
            raise fault(where, "chosen and rejected are the same, so nothing is preferred")
        return {**_question(value, before, where), "chosen": chosen, "rejected": rejected}

    return list(_read(path, pair))


def _read(
    path: str, make: Callable[[dict[str, Any], str], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    found = False
    for file in data_files(Path(path)):
        for row in iter_rows(file):
            found = True
            # Named by its place, as messages name it: ids in such files need not be unique.
            yield {"id": f"{file.name}:{row.number}", **make(row.value, row.where)}
    if not found:
        raise SeedError(f"{path}: holds no records")


def _question(value: dict[str, Any], before: list[Turn], where: str) -> dict[str, Any]:
    if isinstance(value.get("instruction"), str) and "prompt" not in value:
        return {"instruction": value["instruction"], "input": str(value.get("input") or "")}
    prompt = value.get("prompt", before)
    if isinstance(prompt, str):
        turns = [{"role": "user", "content": prompt}]
    else:
        turns = _turns(prompt, "prompt", where)
    if not turns or turns[-1]["role"] != "user":
        raise fault(where, 'field "prompt" must end with a question by the user')
    return {"messages": turns}


def _answer(value: dict[str, Any], field: str, where: str) -> tuple[str, list[Turn]]:
    """An answer's text, and the turns that stand before it."""
    found = value.get(field)
    if isinstance(found, str) and found.strip():
        return found, []
    if not isinstance(found, list):
        raise fault(where, f'field "{field}" is {kind_of(found)}; it must be an answer')
    *before, last = _turns(found, field, where)
    if last["role"] != "assistant":
        raise fault(where, f'field "{field}" must end with a turn of the assistant')
    return last["content"], before


def _turns(found: Any, field: str, where: str) -> list[Turn]:
    return check_turns(read_turns(found, field, where), field, where)
