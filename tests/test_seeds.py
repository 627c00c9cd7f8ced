"""Reading seeds: every layout gives the same tasks, and every fault is named in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import SeedError
from selfinstruct.core.types import SeedTask
from selfinstruct.steps.seeds.reader import iter_seeds, read_seeds

ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Translate to French.", "input": "Good day", "output": "Bonjour"},
]
WANTED = [("Name a colour.", "", "Blue."), ("Translate to French.", "Good day", "Bonjour")]


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(path: Path, *records: Any) -> Path:
    return put(path, "".join(json.dumps(record) + "\n" for record in records))


def texts(tasks: list[SeedTask]) -> list[tuple[str, str, str]]:
    return [(task.instruction, task.input, task.output) for task in tasks]


def fault_of(path: Path, **options: Any) -> str:
    """The one line that reading `path` fails with, the folder cut from it."""
    with pytest.raises(SeedError) as caught:
        read_seeds(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


def chat(asked: str, told: str, who: str = "role", said: str = "content") -> list[dict[str, str]]:
    human, machine = ("user", "assistant") if who == "role" else ("human", "gpt")
    return [{who: human, said: asked}, {who: machine, said: told}]


# -- layouts -------------------------------------------------------------------------------------


def test_own_jsonl_keeps_every_field(tmp_path: Path) -> None:
    """Our own JSONL gives id, category and texts as they are, and says where they stand."""
    record = {"id": "a", "category": "qa", "instruction": "Ask.", "input": "It.", "output": "Yes."}
    path = lines(tmp_path / "own.jsonl", record)
    assert read_seeds(path, private=True) == [
        SeedTask(
            id="a",
            instruction="Ask.",
            input="It.",
            output="Yes.",
            category="qa",
            source=f"{path}:1",
            private=True,
        )
    ]


@pytest.mark.parametrize(
    ("instruction", "input", "output"),
    [
        ("instruction", "input", "output"),
        ("instruction", "context", "response"),
        ("prompt", "context", "completion"),
        ("question", "context", "answer"),
        ("query", "input", "response"),
    ],
)
def test_field_names_of_known_collections(
    tmp_path: Path, instruction: str, input: str, output: str
) -> None:
    """Alpaca's, Dolly's and other usual field names mean the same in JSONL, JSON and CSV."""
    records = [dict(zip((instruction, input, output), want, strict=True)) for want in WANTED]
    header = f"{instruction.title()},{input},{output}\r\n"
    cells = "".join(",".join(want) + "\r\n" for want in WANTED)
    assert texts(read_seeds(lines(tmp_path / "a.jsonl", *records))) == WANTED
    assert texts(read_seeds(put(tmp_path / "a.json", json.dumps(records)))) == WANTED
    assert texts(read_seeds(put(tmp_path / "a.csv", header + cells))) == WANTED


def test_self_instruct_gives_one_task_an_instance(tmp_path: Path) -> None:
    """Each instance becomes a task; ids get a suffix only where there are several."""
    path = lines(
        tmp_path / "seed_tasks.jsonl",
        {
            "id": "seed_task_0",
            "name": "pets",
            "instruction": "Is it a pet?",
            "instances": [
                {"input": "cat", "output": "yes"},
                {"input": "<noinput>", "output": "no"},
            ],
            "is_classification": True,
        },
        {
            "id": "seed_task_1",
            "instruction": "Sing.",
            "instances": [{"input": "", "output": "La."}],
            "is_classification": False,
        },
    )
    found = read_seeds(path)
    assert [task.id for task in found] == ["seed_task_0-1", "seed_task_0-2", "seed_task_1"]
    assert [task.input for task in found] == ["cat", "", ""]
    assert [task.category for task in found] == ["classification", "classification", ""]


def test_conversations_give_their_first_exchange(tmp_path: Path) -> None:
    """messages and ShareGPT: first user turn, the reply to it; system text is the input."""
    talk = [
        {"role": "system", "content": "Answer in French."},
        *chat("Good day", "Bonjour"),
        *chat("More", "Encore"),
    ]
    shared = [
        {"from": "gpt", "value": "Hello, ask me."},
        {"from": "system", "value": "Answer in French."},
        *chat("Good day", "Bonjour", "from", "value"),
    ]
    want = [("Good day", "Answer in French.", "Bonjour")]
    assert texts(read_seeds(lines(tmp_path / "m.jsonl", {"messages": talk}))) == want
    assert texts(read_seeds(lines(tmp_path / "s.jsonl", {"conversations": shared}))) == want


def test_content_parts_are_joined(tmp_path: Path) -> None:
    """A turn whose content is a list of text parts is one text; other parts are refused."""
    parts = [{"type": "text", "text": "Name"}, {"type": "text", "text": "a colour."}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Blue."}]
    assert read_seeds(lines(tmp_path / "m.jsonl", {"messages": talk}))[0].instruction == (
        "Name\na colour."
    )
    talk[0]["content"] = [{"type": "image_url", "image_url": {}}]
    assert fault_of(lines(tmp_path / "i.jsonl", {"messages": talk})) == (
        'i.jsonl:1: field "messages[1]" holds more than text; images and files are not read'
    )


def test_prompt_and_completion_may_be_messages(tmp_path: Path) -> None:
    """prompt/completion records read the same as strings and as lists of messages."""
    asked, told = chat("Name a colour.", "Blue.")
    path = lines(
        tmp_path / "p.jsonl",
        {"prompt": [asked], "completion": [told]},
        {"prompt": [asked], "completion": "Blue."},
        {"prompt": "Name a colour.", "completion": "Blue."},
    )
    assert texts(read_seeds(path)) == [("Name a colour.", "", "Blue.")] * 3


def test_prompt_beside_messages_reads_the_messages(tmp_path: Path) -> None:
    """A record with a prompt but no completion, and messages, is a conversation."""
    record = {"prompt": "Name a colour.", "messages": chat("Name a colour.", "Blue.")}
    assert texts(read_seeds(lines(tmp_path / "n.jsonl", record))) == [WANTED[0]]


def test_format_overrules_the_guess(tmp_path: Path) -> None:
    """`format` decides where a record could be read in two ways; an unknown one is refused."""
    record = ALPACA[0] | {"messages": chat("Hi", "Hello")}
    path = lines(tmp_path / "two.jsonl", record)
    assert texts(read_seeds(path)) == [WANTED[0]]
    assert texts(read_seeds(path, format="conversation")) == [("Hi", "", "Hello")]
    assert fault_of(path, format="xml") == (
        "'xml' is no format of seeds; known are fields, self-instruct, conversation"
    )


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_takes_the_usual_delimiters_and_line_breaks(tmp_path: Path, mark: str) -> None:
    """Comma, semicolon and tab; a quoted cell may hold line breaks; lines are the file's lines."""
    text = f'instruction{mark}output\n"Two\nlines"{mark}"a, b; c"\nOne{mark}two\n'
    found = read_seeds(put(tmp_path / "c.csv", text))
    assert texts(found) == [("Two\nlines", "", "a, b; c"), ("One", "", "two")]
    assert [task.source[-2:] for task in found] == [":2", ":4"]


def test_a_cell_of_csv_may_be_long(tmp_path: Path) -> None:
    """A whole document is one, and the library's limit for the process stays what it was."""
    before = csv.field_size_limit()
    text = f"instruction,output\nSum up.,{'word ' * 40_000}\n"
    assert len(read_seeds(put(tmp_path / "c.csv", text))[0].output) > before
    begun = iter_seeds(put(tmp_path / "d.csv", "instruction,output\nA,B\nC,D\n"))
    next(begun)
    assert csv.field_size_limit() == before
    assert len(list(begun)) == 1


def test_parquet(tmp_path: Path) -> None:
    """Parquet rows are read in order; nulls are empty inputs; other columns are left alone."""
    records = [{"instruction": "A b c", "input": None, "output": "x", "text": "left"}] * 3
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "p.parquet")
    found = read_seeds(tmp_path / "p.parquet")
    assert texts(found) == [("A b c", "", "x")] * 3
    assert found[2].source == f"{tmp_path / 'p.parquet'}:3"


def test_saved_dataset(tmp_path: Path) -> None:
    """A folder of `save_to_disk` is read, alone or with splits; of splits only what is to learn."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ALPACA)
    data.save_to_disk(tmp_path / "one")
    other = datasets.Dataset.from_list([ALPACA[0] | {"output": "held out"}])
    datasets.DatasetDict(train=data, test=other).save_to_disk(tmp_path / "splits")
    assert texts(read_seeds(tmp_path / "one")) == WANTED
    assert texts(read_seeds(tmp_path / "splits")) == WANTED


def test_hub_folder_leaves_the_held_out_split(tmp_path: Path) -> None:
    """Of a folder in the Hub's layout data/ is read, and its test split left."""
    pq.write_table(pa.Table.from_pylist(ALPACA[:1]), put(tmp_path / "data/train-0.parquet", ""))
    pq.write_table(pa.Table.from_pylist(ALPACA[1:]), put(tmp_path / "data/test-0.parquet", ""))
    put(tmp_path / "README.md", "# card")
    lines(tmp_path / "train.jsonl", *ALPACA)
    assert texts(read_seeds(tmp_path)) == WANTED[:1]


def test_folder_of_files_is_read_in_name_order(tmp_path: Path) -> None:
    """A plain folder's data files are read in the order of their names, with their own lines."""
    lines(tmp_path / "b.jsonl", ALPACA[1])
    put(tmp_path / "a.json", json.dumps(ALPACA[:1]))
    put(tmp_path / "notes.txt", "not data")
    found = read_seeds(tmp_path)
    assert [task.id for task in found] == ["a-1", "b-1"]
    assert texts(found) == WANTED


# -- details -------------------------------------------------------------------------------------


def test_ids_are_kept_or_made(tmp_path: Path) -> None:
    """Given ids stay, also numbers; others are the file's stem and the record's number."""
    path = lines(
        tmp_path / "x.jsonl", ALPACA[0] | {"id": 7}, ALPACA[1], ALPACA[1] | {"id": ""}, ALPACA[0]
    )
    assert [task.id for task in read_seeds(path)] == ["7", "x-2", "x-3", "x-4"]


def test_made_ids_avoid_given_ones(tmp_path: Path) -> None:
    """A made id that a record before has taken gets a suffix."""
    path = lines(tmp_path / "x.jsonl", ALPACA[0] | {"id": "x-2"}, ALPACA[1])
    assert [task.id for task in read_seeds(path)] == ["x-2", "x-2-2"]


def test_limit_stops_reading(tmp_path: Path) -> None:
    """`limit` takes the first examples and does not look at what comes after."""
    path = put(tmp_path / "l.jsonl", json.dumps(ALPACA[0]) + "\nnot json\n")
    assert len(read_seeds(path, limit=1)) == 1
    assert next(iter_seeds(path)).instruction == "Name a colour."


@pytest.mark.parametrize(
    "spelled", ["<noinput>", "<No input>", "No input.", '"<noinput>"', "noinput", "(No Input)"]
)
def test_no_input_is_empty(tmp_path: Path, spelled: str) -> None:
    """The ways in which data says that there is no input all mean the empty input."""
    path = lines(tmp_path / "n.jsonl", ALPACA[0] | {"input": spelled})
    assert read_seeds(path)[0].input == ""


def test_text_keeps_its_indentation(tmp_path: Path) -> None:
    """Blank lines around a text go, the first line's indentation stays."""
    path = lines(tmp_path / "t.jsonl", ALPACA[0] | {"output": "\n  \n    return 1\n\n"})
    assert read_seeds(path)[0].output == "    return 1"


def test_bom_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    """A byte order mark, blank lines and CRLF change nothing, in any text format."""
    body = json.dumps(ALPACA[0]).encode()
    bom = b"\xef\xbb\xbf"
    assert texts(read_seeds(put(tmp_path / "a.jsonl", bom + b"\r\n" + body + b"\r\n"))) == [
        WANTED[0]
    ]
    assert texts(read_seeds(put(tmp_path / "a.json", bom + b"[" + body + b"]"))) == [WANTED[0]]
    assert texts(read_seeds(put(tmp_path / "a.csv", bom + b"instruction,output\r\nHi,Yo\r\n"))) == [
        ("Hi", "", "Yo")
    ]


def test_line_separator_in_text_is_text(tmp_path: Path) -> None:
    """U+2028 within a JSON string does not end the line."""
    record = ALPACA[0] | {"output": "a\u2028b"}
    path = put(tmp_path / "u.jsonl", json.dumps(record, ensure_ascii=False))
    assert read_seeds(path)[0].output == "a\u2028b"


def test_shipped_seeds_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path under seeds/ that is not there is the shipped file of that name."""
    from selfinstruct.core.shipped import shipped_root

    shipped = sorted((shipped_root() / "seeds").glob("*.jsonl"))
    if not shipped:
        pytest.skip("no seeds are shipped")
    monkeypatch.chdir(tmp_path)
    assert read_seeds(Path("seeds") / shipped[0].name, limit=1)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
            st.text(st.characters(codec="utf-8")),
            st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_survives_jsonl_json_and_csv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    """Whatever the text, JSONL, a JSON list and Parquet give the same tasks, in the same number."""
    folder = tmp_path_factory.mktemp("any")
    names = ("instruction", "input", "output")
    records = [dict(zip(names, row, strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(records), folder / "r.parquet")
    found = [
        texts(read_seeds(lines(folder / "r.jsonl", *records))),
        texts(read_seeds(put(folder / "r.json", json.dumps(records, ensure_ascii=False)))),
        texts(read_seeds(folder / "r.parquet")),
    ]
    assert found[0] == found[1] == found[2]
    assert [task[0] for task in found[0]] == [row[0].strip() for row in rows]
