"""The user's own conversations and preference pairs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct.core.errors import SeedError
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.inputs import Inputs
from selfinstruct.steps.training.own_data import read_conversations, read_pairs
from tests.tiny_student import make_base, make_run

ASKED = {"role": "user", "content": "Name a colour"}
BLUE = {"role": "assistant", "content": "Blue."}
NO = {"role": "assistant", "content": "No."}


def write(folder: Path, *records: Any) -> str:
    path = folder / "own.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return str(path)


def test_conversations_by_role_and_by_speaker(tmp_path: Path) -> None:
    """Both the messages of OpenAI and the conversations of ShareGPT are read."""
    path = write(
        tmp_path,
        {"messages": [ASKED, BLUE]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    )
    first, second = read_conversations(path)
    assert first == {"id": "own.jsonl:1", "messages": [ASKED, BLUE]}
    assert [turn["role"] for turn in second["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "Hi"}, r"own\.jsonl:1: field \"conversations\".*list of turns"),
        ({"messages": [ASKED]}, "no answer of the assistant"),
        ({"messages": [ASKED, {"role": "assistant", "content": " "}]}, r"messages\[2\].*empty"),
        ({"messages": [ASKED, {"role": "tool", "content": "1"}, BLUE]}, "by a tool"),
    ],
)
def test_conversations_that_cannot_be_learned(tmp_path: Path, record: Any, said: str) -> None:
    """File, line and field are named."""
    with pytest.raises(SeedError, match=said):
        read_conversations(write(tmp_path, record))


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Name a colour", "chosen": "Blue.", "rejected": "No."},
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": [NO]},
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, NO]},
    ],
)
def test_pairs_in_every_form(tmp_path: Path, record: Any) -> None:
    """Plain text, turns, and turns that hold the question are the same pair."""
    (pair,) = read_pairs(write(tmp_path, record))
    assert pair == {"id": "own.jsonl:1", "messages": [ASKED], "chosen": "Blue.", "rejected": "No."}


def test_pairs_of_an_instruction_and_an_input(tmp_path: Path) -> None:
    """The fields of the run's own records are kept, so that they get the same prompt."""
    record = {"instruction": "Add", "input": "1, 2", "chosen": "3", "rejected": "4"}
    (pair,) = read_pairs(write(tmp_path, record))
    assert pair == {"id": "own.jsonl:1", **record}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "A", "chosen": "b", "rejected": "b"}, "nothing is preferred"),
        ({"prompt": "A", "chosen": "b"}, r'own\.jsonl:1: field "rejected" is'),
        ({"chosen": [BLUE], "rejected": [NO]}, "prompt"),
        ({"prompt": [ASKED, BLUE], "chosen": "b", "rejected": "c"}, "end with a question"),
        ({"prompt": "A", "chosen": [ASKED], "rejected": [NO]}, "end with a turn of the assistant"),
    ],
)
def test_pairs_that_are_none(tmp_path: Path, record: Any, said: str) -> None:
    """What is missing or the same is named with file and line."""
    with pytest.raises(SeedError, match=said):
        read_pairs(write(tmp_path, record))


def test_an_empty_file(tmp_path: Path) -> None:
    """A file without records is told apart from a missing one."""
    with pytest.raises(SeedError):
        read_pairs(write(tmp_path))
    with pytest.raises(SeedError, match="no such file"):
        read_conversations(str(tmp_path / "none.jsonl"))


def test_data_that_were_moved_are_the_same_data(tmp_path: Path) -> None:
    """Where conversations, pairs and the teacher lie is no other training; what they say is."""
    base = make_base(tmp_path / "base")
    run = make_run(tmp_path / "run", base)
    pair = {"prompt": "Name a colour", "chosen": "Blue.", "rejected": "Five."}

    def mark(folder: Path, said: dict[str, Any] = pair) -> str:
        for name in ("pairs", "chats"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if not (folder / "teacher").is_dir():
            shutil.copytree(base, folder / "teacher")
        own = {
            "base": str(base),
            "conversations": write(folder / "chats", {"messages": [ASKED, BLUE]}),
            "preference": {"data": write(folder / "pairs", said)},
            "distillation": {"teacher": str(folder / "teacher")},
        }
        config = StudentConfig.model_validate(own)
        return Inputs(config, run.dataset, Policy(), system="", seed=1).mark

    first = mark(tmp_path / "one")
    assert mark(tmp_path / "two") == first
    assert mark(tmp_path / "two", pair | {"rejected": "Six."}) != first
