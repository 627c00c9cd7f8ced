"""Data that is there already, to train on as it is: single tasks, and whole conversations.

    found = read_given([SeedSource(path="claims.jsonl")])

Any kind of file and layout that seeds may have. Unlike a seed, a conversation keeps all its turns.
A row that is no whole task (no output, a wrong type, a line that is not JSON) is named and left
out, and reading goes on. A file most of whose rows cannot be read is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import SeedError
from selfinstruct.core.sections.generate import SeedSource
from selfinstruct.steps.seeds.faults import fault
from selfinstruct.steps.seeds.files import data_files
from selfinstruct.steps.seeds.layouts import (
    Layout,
    check_turns,
    examples,
    from_the_question,
    layout_of,
    turns_of,
)
from selfinstruct.steps.seeds.rows import Row, iter_rows


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """One record. `source` is where it was read (``file:line``).

    A conversation that is more than a question and its answer has `messages`; its `instruction` is
    then the last question, and `output` the last answer.
    """

    id: str
    source: str
    instruction: str
    input: str
    output: str
    category: str
    private: bool = False
    messages: list[dict[str, str]] | None = None


class GivenData(msgspec.Struct, frozen=True):
    """What was read; `held_out` are the records of files that belong to a split for testing.

    `faults` has a line for each row that was left out.
    """

    train: list[Given]
    held_out: list[Given]
    faults: list[str]


def read_given(sources: Iterable[SeedSource]) -> GivenData:
    """The records of files and folders, of each at most as many as it says.

    Ids are unique: a given one that is taken gets a number behind it. Raises `SeedError` where a
    file cannot be read, or a source has no whole record.
    """
    data, seen = GivenData([], [], []), dict[str, int]()
    for source in sources:
        path = Path(source.path)
        files = data_files(path)
        before, known = len(data.train), len(data.faults)
        data.train.extend(islice(_records(files, data.faults, seen, source.private), source.limit))
        if len(data.train) == before:
            why = f"; the first fault: {data.faults[known]}" if data.faults[known:] else ""
            raise fault(str(path), f"holds no whole record{why}")
        held = [file for file in data_files(path, held_out=True) if file not in files]
        data.held_out.extend(_records(held, data.faults, seen, source.private))
    return data


def _records(
    files: Iterable[Path], faults: list[str], seen: dict[str, int], private: bool
) -> Iterator[Given]:
    for file in files:
        layout: Layout | None = None
        unreadable: list[SeedError] = []
        rows = 0
        for row in _rows(file, unreadable, faults):
            rows += 1
            try:
                layout = _own_layout(row, layout)
                found = _of_row(row, layout)
            except SeedError as error:
                faults.append(str(error))
                continue
            for record in found:
                # Ids stay the same when the lines that cannot be read are mended.
                name = unique(record.id or f"{file.stem}-{rows + len(unreadable)}", seen)
                yield msgspec.structs.replace(record, id=name, private=private)
        if len(unreadable) > rows:
            raise fault(
                str(file),
                f"{len(unreadable):,} of its {rows + len(unreadable):,} rows cannot be read, so it "
                f"may be another kind of file; the first: {unreadable[0]}",
            )


def _rows(file: Path, unreadable: list[SeedError], faults: list[str]) -> Iterator[Row]:
    """The rows of `file`; those that cannot be read go to `unreadable`, in words to `faults`."""

    def report(error: SeedError) -> None:
        unreadable.append(error)
        faults.append(str(error))

    return iter_rows(file, report)


def _own_layout(row: Row, before: Layout | None) -> Layout:
    """What the row itself has, a conversation first; else that of the row before."""
    if isinstance(row.value.get("messages"), list) and row.value["messages"]:
        return "conversation"
    there = {name: value for name, value in row.value.items() if value is not None}
    try:
        return layout_of(there, row.where)
    except SeedError:
        # Where all is null, the names still say what it is.
        return before or layout_of(row.value, row.where)


def _of_row(row: Row, layout: Layout) -> list[Given]:
    # In tables these are numbers, too.
    names = {name: _text(row.value, name) for name in ("id", "category") if name in row.value}
    row = row._replace(value=row.value | names)
    talk = turns_of(row.value, layout, row.where)
    if talk is not None and [who for who, _ in talk[1]] != ["user", "assistant"]:
        return [_conversation(row, *talk)]
    return [
        Given(source=row.where, **example._asdict())
        for example in examples(row.value, layout, row.where)
    ]


def _conversation(row: Row, field: str, turns: list[tuple[str, str]]) -> Given:
    """A conversation from its first question to its last answer; the rest is not learned."""
    messages = from_the_question(check_turns(turns, field, row.where))
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    asked = [turn["content"] for turn in messages if turn["role"] == "user"]
    if not asked:
        raise fault(row.where, f'field "{field}" has no answer of the assistant to a user')
    return Given(
        id=_text(row.value, "id"),
        source=row.where,
        instruction=asked[-1],
        input="",
        output=messages[-1]["content"],
        category=_text(row.value, "category"),
        messages=messages,
    )


def _text(value: dict[str, Any], field: str) -> str:
    found = value.get(field)
    return "" if found is None else str(found)


def unique(name: str, seen: dict[str, int]) -> str:
    """`name`, with a number behind it where it is in `seen`; adds what it returns to `seen`."""
    found = name
    while found in seen:
        seen[name] += 1
        found = f"{name}-{seen[name]}"
    seen[found] = 1
    return found
