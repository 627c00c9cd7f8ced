"""Data that is there already: every whole record and every turn of it, faults named."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfinstruct.core.errors import SeedError
from selfinstruct.core.sections.generate import SeedSource
from selfinstruct.steps.seeds.given import Given, GivenData, read_given, unique


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(path: Path, **settings: Any) -> GivenData:
    return read_given([SeedSource(path=str(path), **settings)])


def talk(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": who, "content": text} for who, text in turns]}


def test_a_task_is_its_fields(tmp_path: Path) -> None:
    """A record of instruction, input and output, or a question with its answer, has no turns."""
    file = write(
        tmp_path / "a.jsonl",
        [
            {
                "instruction": "Add.",
                "input": "1 2",
                "output": "3",
                "id": "sum",
                "category": "maths",
            },
            {"instruction": "Say hello.", "output": "Hello."},
        ],
    )
    first, second = read(file, private=True).train
    assert first == Given(
        id="sum", source=f"{file}:1", instruction="Add.", input="1 2", output="3",
        category="maths", private=True,
    )  # fmt: skip
    assert (second.id, second.input, second.messages) == ("a-2", "", None)
    plain = write(tmp_path / "b.jsonl", [talk(("user", "Hi?"), ("assistant", "Yes."))])
    only = read(plain).train[0]
    assert (only.instruction, only.output, only.messages) == ("Hi?", "Yes.", None)


def test_a_conversation_keeps_all_its_turns(tmp_path: Path) -> None:
    """System message and earlier turns stay; what follows the last answer is not learned."""
    turns = [("system", "Be brief."), ("user", "A?"), ("assistant", "B."), ("user", "C?")]
    file = write(tmp_path / "a.jsonl", [talk(*turns, ("assistant", "D."), ("user", "E?"))])
    record = read(file).train[0]
    assert (record.instruction, record.output) == ("C?", "D.")
    assert record.messages is not None
    assert [turn["content"] for turn in record.messages] == ["Be brief.", "A?", "B.", "C?", "D."]


def test_what_the_assistant_says_unasked_is_no_answer(tmp_path: Path) -> None:
    """A greeting before the first question is left out, as templates would refuse it."""
    turns = [("system", "Be brief."), ("assistant", "Hello!"), ("user", "A?"), ("assistant", "B.")]
    file = write(tmp_path / "a.jsonl", [talk(*turns), talk(*turns[1:2])])
    data = read(file)
    assert data.train[0].messages is not None
    assert [turn["content"] for turn in data.train[0].messages] == ["Be brief.", "A?", "B."]
    assert "has no answer of the assistant to a user" in data.faults[0]


def test_a_prompt_of_turns_with_its_completion_is_a_conversation(tmp_path: Path) -> None:
    """TRL's prompt and completion, as lists of messages, keep what came before the question."""
    prompt = talk(("system", "Be brief."), ("user", "A?"))["messages"]
    row = {"prompt": prompt, "completion": talk(("assistant", "B."))["messages"]}
    record = read(write(tmp_path / "a.jsonl", [row])).train[0]
    assert record.messages is not None
    assert [turn["role"] for turn in record.messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"instruction": "Add.", "output": ""}, r'a\.jsonl:2: field "output" is empty'),
        ({"instruction": None, "output": None}, r'a\.jsonl:2: field "instruction" is null'),
        (talk(("user", "A?"), ("tool", "x"), ("assistant", "B.")), r'"messages\[2\]" is by a tool'),
        (talk(("user", "A?"), ("assistant", " "), ("user", "C?"), ("assistant", "D.")), "is empty"),
        (talk(("system", "A."), ("assistant", "B.")), "no answer of the assistant to a user"),
    ],
)
def test_a_faulty_row_is_named_and_left_out(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    """Reading goes on, and the fault says file, line, field and what is wrong."""
    good = talk(("user", "Hi?"), ("assistant", "Yes.")) if "messages" in row else {
        "instruction": "Say hello.", "output": "Hello.",
    }  # fmt: skip
    data = read(write(tmp_path / "a.jsonl", [good, row, good]))
    assert len(data.train) == 2
    with pytest.raises(SeedError, match=says):
        raise SeedError(data.faults[0])


def test_a_file_may_hold_tasks_and_conversations(tmp_path: Path) -> None:
    """Each row is read by what it has, whichever kind comes first; a conversation goes before the
    single task that stands beside it, as in this package's own datasets."""
    task = {"instruction": "Say hello.", "output": "Hello."}
    chat = talk(("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D."))
    both = chat | {"instruction": "C?", "input": "", "output": "D."}
    rows = [task | {"messages": None}, chat, both, task]
    for order in (rows, rows[::-1]):
        data = read(write(tmp_path / "a.jsonl", order))
        assert not data.faults
        turns = [len(record.messages or []) for record in data.train]
        assert turns == ([0, 4, 4, 0] if order is rows else [0, 4, 4, 0][::-1])


def test_ids_and_categories_may_be_numbers(tmp_path: Path) -> None:
    """A number for a name, as tables have them, costs no record."""
    task = {"instruction": "Say hello.", "output": "Hello.", "id": 7.5, "category": 3}
    record = read(write(tmp_path / "a.jsonl", [task])).train[0]
    assert (record.id, record.category) == ("7.5", "3")


def test_a_file_without_a_whole_record_is_an_error(tmp_path: Path) -> None:
    """It names the first fault."""
    file = write(tmp_path / "a.jsonl", [{"instruction": "Add.", "output": ""}])
    with pytest.raises(SeedError, match=r"no whole record; the first fault: .*a\.jsonl:1"):
        read(file)
    write(file, [{"instruction": None, "output": None}])
    with pytest.raises(SeedError, match='field "instruction" is null; it must be text'):
        read(file)
    with pytest.raises(SeedError, match=r"none\.jsonl"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(SeedError, match="is an address, and files of this machine are read"):
        read(Path("https://host.example/claims.jsonl"))


def test_turns_under_another_name_are_told(tmp_path: Path) -> None:
    """In Parquet too, of which otherwise only the known columns are read."""
    rows = [{"id": "1", "dialogue": talk(("user", "Hi?"), ("assistant", "Yes."))["messages"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for file in (write(tmp_path / "a.jsonl", rows), tmp_path / "a.parquet"):
        with pytest.raises(
            SeedError, match=r'"id", "dialogue".*"dialogue" holds turns: call it mes'
        ):
            read(file)


def test_a_split_for_testing_is_kept_apart(tmp_path: Path) -> None:
    """Files of a split named test belong to no training record; a limit is one of training."""
    row = {"instruction": "Say hello.", "output": "Hello."}
    write(tmp_path / "set" / "train.jsonl", [row] * 5)
    write(tmp_path / "set" / "test.jsonl", [row] * 2)
    data = read(tmp_path / "set", limit=3)
    assert (len(data.train), len(data.held_out)) == (3, 2)


def test_taken_ids_get_a_number() -> None:
    """Each name is given once, however often it is asked for, in time that grows with the rows."""
    seen: dict[str, int] = {}
    assert [unique(name, seen) for name in ("a", "a", "a-2", "a")] == ["a", "a-2", "a-2-2", "a-3"]
    began = time.process_time()
    names = [unique("same", seen) for _ in range(20_000)]
    assert len(set(names)) == 20_000
    assert time.process_time() - began < 5, "it takes the square of the rows"


def test_the_first_fault_of_a_source_is_named(tmp_path: Path) -> None:
    """Of a file without a whole record it is that file's first, not its last or another's."""
    task = {"instruction": "Name one", "output": "One."}
    some = write(tmp_path / "some.jsonl", [task | {"output": ""}, task])
    none = write(tmp_path / "none.jsonl", [task | {"output": ""}, task | {"output": " "}])
    with pytest.raises(SeedError, match=r"none\.jsonl: holds no whole .*none\.jsonl:1: .*empty"):
        read_given([SeedSource(path=str(some)), SeedSource(path=str(none))])


def test_a_line_that_cannot_be_read_is_left_out_like_a_faulty_row(tmp_path: Path) -> None:
    """It is named with its line, and mending it changes no other record's id."""
    good = json.dumps({"instruction": "Say hello.", "output": "Hello."})
    file = tmp_path / "a.jsonl"
    file.write_text(f'{good}\n{{"instruction": "Add\n{good}\n[1, 2]\n{good}\n', "utf-8")
    data = read(file)
    assert [record.id for record in data.train] == ["a-1", "a-3", "a-5"]
    assert data.faults == [
        f"{file}:2: is not JSON: Unterminated string starting at column 17",
        f"{file}:4: a record must be an object, this is a list",
    ]
    table = tmp_path / "a.csv"
    table.write_text("instruction,output\nAdd one, please,2\nSay hello.,Hello.\n", "utf-8")
    data = read(table)
    assert (len(data.train), data.faults) == (
        1,
        [f"{table}:2: has 3 cells, but the header names 2"],
    )


def test_a_file_that_can_mostly_not_be_read_is_an_error(tmp_path: Path) -> None:
    """What can be read of it is no more than chance; one JSON object over lines is told as such."""
    good = json.dumps({"instruction": "Say hello.", "output": "Hello."})
    file = tmp_path / "a.jsonl"
    file.write_text(f"{good}\nnot json\n{good}\n{{\n", "utf-8")
    assert len(read(file).train) == 2
    file.write_text(f"{good}\nnot json\n{{\n", "utf-8")
    with pytest.raises(SeedError, match=r"2 of its 3 rows cannot be read.* first: .*a\.jsonl:2: "):
        read(file)
    file.write_text(json.dumps(json.loads(good), indent=1), "utf-8")
    with pytest.raises(SeedError, match="is one JSON object with the fields"):
        read(file)
    file.write_bytes(f"{good}\n".encode() + b'{"instruction": "\xe9"}\n')
    with pytest.raises(SeedError, match="is not UTF-8; save the file as UTF-8"):
        read(file)  # the next lines with such letters would be missing too
