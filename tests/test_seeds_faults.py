"""A faulty seed file is named by file, line and field, in one line that says what to do."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import SeedError
from selfinstruct.core.types import SeedTask
from selfinstruct.steps.seeds.reader import read_seeds
from tests.test_seeds import ALPACA, fault_of, lines, put

GOOD = ALPACA[0]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"instruction": "Hi there", "input": ""},
            'field "output" is missing; the record has "instruction", "input"',
        ),
        (GOOD | {"output": " \n"}, 'field "output" is empty; fill it in or remove the record'),
        (
            GOOD | {"instruction": ""},
            'field "instruction" is empty; fill it in or remove the record',
        ),
        (GOOD | {"instruction": 5}, 'field "instruction" is a number; it must be text'),
        (GOOD | {"output": None}, 'field "output" is null; it must be text'),
        (GOOD | {"input": ["x"]}, 'field "input" is a list; it must be text'),
        (GOOD | {"category": {}}, 'field "category" is an object; it must be text'),
        (GOOD | {"id": 1.5}, 'field "id" is a number; it must be text'),
        (["a"], "a record must be an object, this is a list"),
        ("text", "a record must be an object, this is text"),
        (
            GOOD | {"output": "cut \ud83d"},
            'field "output" holds half a character (\\ud83d at 4), as when an emoji is cut in two; '
            "remove it",
        ),
    ],
)
def test_faulty_record(tmp_path: Path, record: Any, said: str) -> None:
    """Each fault of a record is told with its line and field, in JSONL and in a JSON list."""
    path = lines(tmp_path / "x.jsonl", GOOD, record)
    assert fault_of(path) == f"x.jsonl:2: {said}"
    path = put(tmp_path / "x.json", json.dumps([GOOD, record], indent=1))
    assert fault_of(path) == f"x.json:7: {said}"


def test_later_faults_are_counted(tmp_path: Path) -> None:
    """The first faulty record is named and those after it are counted."""
    bad = GOOD | {"output": ""}
    said = 'x.jsonl:1: field "output" is empty; fill it in or remove the record'
    path = lines(tmp_path / "x.jsonl", bad, GOOD, bad, bad)
    assert fault_of(path) == f"{said} (2 records after it are faulty too)"
    path = put(tmp_path / "x.jsonl", f"{json.dumps(bad)}\n{json.dumps(bad)}\nnot json\n")
    assert fault_of(path) == f"{said} (1 record after it is faulty too)"


def test_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    """An id given twice is told with both places."""
    path = lines(tmp_path / "d.jsonl", GOOD | {"id": "a"}, GOOD, GOOD | {"id": "a"})
    assert fault_of(path) == "d.jsonl:3: field \"id\": 'a' is already the id of d.jsonl:1"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", b'{"a": 1}}', "x.jsonl:1: is not JSON: Extra data at column 9"),
        ("x.jsonl", b"hello\n", "x.jsonl:1: is not JSON: Expecting value at column 1"),
        (
            "x.json",
            b'[\n{"instruction": "a"\n',
            "x.json:3: is not JSON: Expecting ',' delimiter at column 1",
        ),
        (
            "x.json",
            b'[\n{"instruction": "a", "output": "b"}\n{}]',
            "x.json:3: is not JSON: Expecting ',' or ']' at column 1",
        ),
        (
            "x.json",
            b'[{"instruction": "a", "output": "b"}]\n[]',
            "x.json:1: the list ends here, but more text follows it",
        ),
        (
            "x.json",
            b'{\n "data": [],\n "v": 1\n}',
            'x.json: is one JSON object with the fields "data", "v"; '
            "expected a list of records, or one record a line",
        ),
        ("x.jsonl", b'{"instruction": ' + b"[" * 99999, "x.jsonl:1: is nested too deeply to be"),
        ("x.jsonl", b"9" * 5000, "x.jsonl:1: is not JSON that can be read: Exceeds the limit"),
        ("x.json", b"[" + b"9" * 5000, "x.json:1: is not JSON that can be read: Exceeds the"),
        ("x.json", b"[" * 99999, "x.json:1: is nested too deeply to be a record"),
        (
            "x.jsonl",
            b'{"instruction": "a", "output": "b"}\n{"instruction": "caf\xe9"}',
            "x.jsonl:2: byte 56 (0xe9) is not UTF-8; save the file as UTF-8",
        ),
        (
            "x.json",
            b'[{"instruction": "a", "output": "b"},\n{"instruction": "caf\xe9"}]',
            "x.json:2: byte 58 (0xe9) is not UTF-8; save the file as UTF-8",
        ),
        ("x.csv", b"instruction,output\na,\xff\n", "x.csv:2: byte 21 (0xff) is not UTF-8"),
        ("x.jsonl", b"", "x.jsonl: is empty; it must hold at least one record"),
        ("x.jsonl", b"\xef\xbb\xbf \n\n", "x.jsonl: is empty; it must hold at least one record"),
        ("x.json", b"[]", "x.json: holds no records; it must hold at least one"),
        ("x.csv", b"instruction,output\n", "x.csv: holds no records; it must hold at least one"),
        ("x.csv", b"instruction,output\na,b\na\n", "x.csv:3: has 1 cells, but the header names 2"),
        ("x.csv", b'instruction,output\na,"b\nc\n', "x.csv:2: is not CSV: unexpected end of data"),
        ("x.csv", b"instruction,output\na,\n", 'x.csv:2: field "output" is empty; fill it in'),
        (
            "x.csv",
            b"text,label\na,b\n",
            'x.csv:2: no known layout, found the fields "text", "label"; known are instruction,',
        ),
        ("x.txt", b"Once upon a time\n", "x.txt: is no data file: expected JSON lines, a JSON"),
        (
            "x.jsonl.gz",
            gzip.compress(b"{}", mtime=0),
            "x.jsonl.gz: is packed with gzip; unpack it first",
        ),
        ("x.parquet", b"no parquet", "x.parquet: is no Parquet file: it does not begin with PAR1"),
    ],
)
def test_faulty_file(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """Each fault of a file as a whole is told with the line where there is one."""
    assert fault_of(put(tmp_path / name, content)).startswith(said)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"instruction": "a", "instances": []}, 'field "instances" is an empty list'),
        ({"instruction": "a", "instances": "b"}, 'field "instances" is text'),
        (
            {"instruction": "a", "instances": [{"output": "x"}, {"input": "y"}]},
            'field "instances[2].output" is missing; the record has "input"',
        ),
        ({"instruction": "a", "instances": ["x"]}, 'field "instances[1]" is text; it must be an'),
        ({"messages": []}, 'field "messages" is an empty list; it must be a list of turns'),
        ({"messages": "hello"}, 'field "messages" is text; it must be a list of turns'),
        ({"messages": ["hello"]}, 'field "messages[1]" is text; it must be an object'),
        (
            {"messages": [{"role": "narrator", "content": "x"}]},
            "field \"messages[1]\" has the speaker 'narrator'; known are user, human,",
        ),
        ({"messages": [{"role": "user"}]}, 'field "messages[1]" holds null; a turn must be text'),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            'field "messages" has no assistant turn after the first user turn',
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}]},
            'field "messages" has no user turn',
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": " "}]},
            'field "conversations": the first assistant turn is empty',
        ),
    ],
)
def test_faulty_instances_and_turns(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    """Faults within a list are told with the position in it."""
    assert fault_of(lines(tmp_path / "x.jsonl", record)).startswith(f"x.jsonl:1: {said}")


def test_truncated_parquet(tmp_path: Path) -> None:
    """A Parquet file that was cut short is told as such."""
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD] * 100), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert fault_of(path).startswith("p.parquet: is no whole Parquet file; it may have been cut")


def test_truncated_arrow(tmp_path: Path) -> None:
    """So is an Arrow file of a saved dataset, and a state that lists no files."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([GOOD] * 1000).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-1000])
    assert "is no whole Arrow file; it may have been cut short" in fault_of(tmp_path / "saved")
    arrow.unlink()
    assert "cannot be read: No such file or directory" in fault_of(tmp_path / "saved")
    put(tmp_path / "saved/state.json", "{}")
    assert "state.json: is no state of a saved dataset" in fault_of(tmp_path / "saved")


def test_folder_without_data(tmp_path: Path) -> None:
    """A folder without data files is told with what it has."""
    put(tmp_path / "empty/notes.md", "x")
    assert fault_of(tmp_path / "empty").endswith('*.parquet; found "notes.md"')


def test_missing_file_names_what_is_near(tmp_path: Path) -> None:
    """A missing file is told with the nearest name, the data files or the nearest folder."""
    lines(tmp_path / "general.jsonl", GOOD)
    assert fault_of(tmp_path / "genral.jsonl") == (
        "genral.jsonl: no such file; did you mean general.jsonl?"
    )
    assert 'are "general.jsonl"' in fault_of(tmp_path / "zzz")
    assert f"there is no folder {tmp_path / 'no'}" in fault_of(tmp_path / "no/where.jsonl")


def test_an_id_of_the_hub_is_told_how_to_be_fetched() -> None:
    """Owner and name are no path here; a path that names a file is not taken for them."""
    with pytest.raises(SeedError, match="hf download tatsu-lab/alpaca --repo-type dataset"):
        read_seeds(Path("tatsu-lab/alpaca"))
    with pytest.raises(SeedError) as error:
        read_seeds(Path("nowhere/alpaca.jsonl"))
    assert "Hub" not in str(error.value)


def test_text_in_parquet_that_is_not_utf8(tmp_path: Path) -> None:
    """Bytes that some writer called text are told with the rows they are among."""
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    table = pa.table({"instruction": bad, "output": ["x"]})
    pq.write_table(table, tmp_path / "p.parquet")
    assert fault_of(tmp_path / "p.parquet") == (
        "p.parquet:1: one of the rows up to 1 holds text that is not UTF-8"
    )


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["instruction", "input", "output", "instances", "messages", "conversations", "id",
                 "prompt", "completion", "role", "content", "from", "value", "category"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.one_of(st.binary(max_size=200), st.lists(JSONISH, max_size=3)), st.booleans())
def test_any_content_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any, as_list: bool
) -> None:
    """Whatever a file holds, reading gives tasks that can be stored, or one SeedError."""
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    if isinstance(content, list):
        text = json.dumps(content) if as_list else "\n".join(json.dumps(one) for one in content)
        content = text.encode()
    path.write_bytes(content)
    try:
        tasks = read_seeds(path)
    except SeedError as error:
        tasks, said = [], str(error)
    else:
        said = "read"
        assert msgspec.json.decode(msgspec.json.encode(tasks), type=list[SeedTask]) == tasks
    assert bool(tasks) == (said == "read")
    assert "\n" not in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Its beginning would be read to tell what it is, and lost without a word."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SeedError, match="pipe: is a pipe or device; data is read more than once"):
        read_seeds(tmp_path / "pipe")
