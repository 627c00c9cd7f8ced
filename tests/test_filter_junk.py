"""Junk given to `filter`: one clear message, or a named reject for each row; nothing is lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import selfinstruct
from selfinstruct.core.errors import SeedError
from selfinstruct.core.sections.filters import FiltersConfig, RulesConfig
from selfinstruct.steps.rows import chunks, sieve, text_files

OFF = FiltersConfig.model_validate({"wording": {"enabled": False}})
GOOD = b'{"instruction": "Name three old rivers", "output": "Rhine, Danube, Elbe"}'


def filtered(data: Path, **more: Any) -> tuple[dict[str, int], list[dict[str, Any]], int]:
    """Reasons, rejected rows and kept rows of a file; what came in must have come out."""
    out, gone = data.parent / "kept.jsonl", data.parent / "gone.jsonl"
    done = selfinstruct.filter_file(data, out, config=OFF, rejected=gone, force=True, **more)
    rejected = [json.loads(line) for line in gone.read_text("utf-8").splitlines()]
    kept = len(out.read_text("utf-8").splitlines())
    assert done.funnel.read == kept + len(rejected)
    assert sum(done.funnel.rejected.values()) == len(rejected)
    return done.funnel.rejected, rejected, kept


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"instruction": "Name a', "not_json", "Unterminated string starting at at column 17"),
        (b"Once upon a time", "not_json", "Expecting value at column 1"),
        (b'{"output": "' + b"\xff\xfe" + b'"}', "not_utf8", "byte 13 of the line (0xff)"),
        (b"[" * 100_000, "not_json", "nested too deeply"),
        (b"7", "not_a_record", "the row is a number"),
        (b"null", "not_a_record", "the row is null"),
        (b'["instruction"]', "not_a_record", "the row is a list"),
        (b"{}", "unknown_layout", "the row has the fields none"),
        (b'{"text": "A long tale"}', "unknown_layout", 'the row has the fields "text"'),
        (b'{"instruction": "Name a tree"}', "missing_field", 'no "output"; the row has'),
        (b'{"instruction": ["a"], "output": "b"}', "wrong_type", '"instruction" is a list'),
        (b'{"instruction": "Name a tree", "output": {}}', "wrong_type", '"output" is an object'),
        (b'{"instruction": null, "output": "b"}', "empty_instruction", ""),
        (b'{"instruction": "Name a tree", "output": null}', "empty_output", ""),
        (b'{"instruction": "Name a\\u0000 tree", "output": "b"}', "invalid_characters", ""),
        (b'{"instruction": "Name a tree", "output": "\\ud83d"}', "invalid_characters", ""),
        ('{"instruction": "🙂🙃 🙂🙃", "output": "🙃"}'.encode(), "instruction_too_short", ""),
        (b'{"messages": [], "id": 4}', "missing_field", 'field "messages" has no user turn'),
        (b'{"messages": "hello"}', "wrong_type", "it must be a list of turns"),
        (b'{"messages": [{"role": "user", "content": [{"image": 1}]}]}', "wrong_type", "than text"),
        (b'{"instruction": "a", "instances": []}', "wrong_type", "is an empty list"),
    ],
)
def test_a_line_of_junk_is_a_named_reject(
    line: bytes, reason: str, detail: str, tmp_path: Path
) -> None:
    """The line before and the line after are kept, and what stood there is with the reason."""
    data = tmp_path / "data.jsonl"
    after = GOOD.replace(b"rivers", b"mountains in Asia").replace(b"Rhine", b"K2")
    data.write_bytes(GOOD + b"\n" + line + b"\n" + after + b"\n")
    reasons, [row], kept = filtered(data)
    assert reasons == {reason: 1}
    assert kept == 2
    assert row["filter_row"] == "data.jsonl:2"
    assert detail in row["filter_detail"]
    mine = {name: cell for name, cell in row.items() if not name.startswith("filter_")}
    try:
        was = json.loads(line)
    except (ValueError, RecursionError):
        assert mine == {"text": line.decode("utf-8", "backslashreplace")}
    else:
        assert mine == (was if isinstance(was, dict) else {"value": was})
    for name in ("gone.parquet", "gone.csv"):  # which cannot hold everything, yet lose no row
        done = selfinstruct.filter_file(
            data, tmp_path / "kept.json", config=OFF, rejected=tmp_path / name, force=True
        )
        assert done.funnel.kept == 2
    assert pq.read_table(tmp_path / "gone.parquet")["filter_reason"].to_pylist() == [reason]


@pytest.mark.parametrize("window", [1, 7, 64, 1 << 20])
def test_a_json_list_is_read_element_by_element(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any white space between elements, NaN, a key twice, half a pair, numbers of any length: each
    is at its own line and comes out as the text it was, on one line.
    """
    monkeypatch.setattr(text_files, "_WINDOW", window)
    elements = [
        (b'{"a": NaN, "a": 1}', 1),
        (b'{"b":\r\n  [1,\n 2] }', 2),
        (b'"\\ud83d"', 4),
        (b"-1.50e+2", 4),
        (b"123456789012345678901234567890", 7),
        (b'"a,]\\n"', 7),
        (b"[[], {}]", 9),
        (b"null", 9),
    ]
    marks = [b",\n", b" , ", b",", b"\n\n,\n", b",", b"\r\n\t,\r\n", b",", b"\n"]
    text = b"[" + b"".join(one + mark for (one, _), mark in zip(elements, marks, strict=True))
    found = list(text_files.json_list(io.BytesIO(text + b"]\n"), "f"))
    assert [one.where for one in found] == [f"f:{line}" for _, line in elements]
    joined = [b" ".join(part.strip() for part in one.split(b"\n")) for one, _ in elements]
    assert [one.raw for one in found] == joined
    assert repr([one.value for one in found]) == repr([json.loads(one) for one, _ in elements])


def test_right_to_left_and_other_scripts_are_rows_like_others(tmp_path: Path) -> None:
    """Arabic, Hebrew and Chinese rows are kept, and their twins are found."""
    rows = [
        {"instruction": "اكتب قصيدة قصيرة عن البحر", "output": "البحر أزرق"},
        {"instruction": "כתוב שיר קצר על הים", "output": "הים כחול"},
        {"instruction": "写一首关于大海的诗", "output": "海是蓝色的"},
    ]
    data = tmp_path / "data.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in [*rows, rows[0]]]
    data.write_text("\n".join(lines), "utf-8")
    reasons, _, kept = filtered(data)
    assert (reasons, kept) == ({"exact_duplicate": 1}, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", r"empty.jsonl: is empty"),
        ("blank.json", b" \n \n", r"blank.json: is empty"),
        ("none.json", b"[]", r"none.json: holds no rows"),
        ("head.csv", b"instruction,output\n", r"head.csv: holds no rows"),
        ("tale.txt", b"Once upon a time\n", r"tale.txt: is no data file"),
        ("image.jsonl", b"\x89PNG\r\n\x1a\n" * 9, r"image.jsonl:1: not_utf8: .*none of the first"),
        ("packed.jsonl", b"\x1f\x8b\x08" * 9, r"packed.jsonl: is packed with gzip"),
        ("fake.parquet", b"PARQUET?", r"fake.parquet: is no Parquet file"),
        ("cut.parquet", b"PAR1" + b"x" * 400, r"cut.parquet: is no whole Parquet file"),
        ("cut.arrow", b"ARROW1\0\0" + b"x" * 400, r"cut.arrow: is no whole Arrow file"),
        ("comma.json", b"[" + GOOD + b",]", r"comma.json:1: is not JSON: a comma before the end"),
        (
            "open.json",
            b"[" + GOOD,
            r"open.json:1: .*the file ends inside the list|expected a comma",
        ),
        ("text.json", b"[" + GOOD + b"]\n\n" + GOOD, r"text.json:3: the list ends here, but more"),
        ("typo.json", b"[\n" + GOOD + b",\n{'a': 1}]" + b" " * 99, r"typo.json:3: is not JSON"),
        ("quote.csv", b'instruction,output\nName it,"Rhine\n', r"quote.csv:2: is not CSV"),
        ("other.jsonl", b'{"text": "a"}\n' * 150, r"other.jsonl:1: unknown_layout.*first 150 rows"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """One line that names the file, and the line in it; nothing is written."""
    data = tmp_path / name
    data.write_bytes(content)
    with pytest.raises(SeedError, match=message) as caught:
        selfinstruct.filter_file(data, tmp_path / "out.jsonl", rejected=tmp_path / "gone.json")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_without_data_and_a_missing_file(tmp_path: Path) -> None:
    """A folder is looked through, and a wrong name gets the nearest one."""
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SeedError, match="holds no data: looked for"):
        selfinstruct.filter_file(tmp_path / "pictures", tmp_path / "out.jsonl")
    (tmp_path / "data.jsonl").write_bytes(GOOD)
    with pytest.raises(SeedError, match=r"did you mean .*data\.jsonl"):
        selfinstruct.filter_file(tmp_path / "dada.jsonl", tmp_path / "out.jsonl")


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    """Cut anywhere, also behind its magic bytes: one message, no output, no hang."""
    whole = tmp_path / "data.parquet"
    rows = [{"instruction": f"Name tree number {n}", "output": f"Oak {n}"} for n in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), whole, row_group_size=100)
    content = whole.read_bytes()
    for length in (5, len(content) // 2, len(content) - 1):
        whole.write_bytes(content[:length])
        with pytest.raises(SeedError, match="may have been cut short"):
            selfinstruct.filter_file(whole, tmp_path / "out.jsonl")
    whole.write_bytes(content[:600] + bytes(200) + content[800:])  # a page in the middle is gone
    with pytest.raises(SeedError, match="may have been cut short"):
        selfinstruct.filter_file(whole, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_text_that_is_no_utf8_in_parquet_and_csv(tmp_path: Path) -> None:
    """The row with broken bytes is a reject by name; those around it are kept."""
    broken = pa.array([b"Name a river", b"Name a \xff tree", b"Count up to nine"]).view("string")
    answers = pa.array(["Rhine", "Oak", "Nine"])
    pq.write_table(
        pa.table({"instruction": broken, "output": answers, "level": [1, 2, 3]}),
        tmp_path / "data.parquet",
    )
    reasons, [row], kept = filtered(tmp_path / "data.parquet")
    assert (reasons, kept) == ({"not_utf8": 1}, 2)
    assert row["instruction"] == "Name a \\xff tree"
    assert row["level"] == 2
    table = tmp_path / "data.csv"
    table.write_bytes(b"instruction,output\nName a river,Rhine\nName a \xff tree,Oak\na,b,c\n")
    reasons, rows, kept = filtered(table)
    assert (reasons, kept) == ({"invalid_characters": 1, "wrong_cells": 1}, 1)
    assert rows[1]["cells"] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_strings_of_megabytes(suffix: str, tmp_path: Path) -> None:
    """A string of 10 MB in every field is judged, and comes out whole on either side."""
    size = 10 << 20
    long = {
        "instruction": "Name a river",
        "output": "abcd efgh " * (size // 10),
        "note": "x" * size,
    }
    deep = {"instruction": "word " * (size // 5), "output": "Oak", "note": ""}
    data = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        data.write_text(json.dumps(long) + "\n" + json.dumps(deep), "utf-8")
    elif suffix == "json":
        data.write_text(json.dumps([long, deep]), "utf-8")
    elif suffix == "csv":
        cells = [",".join(f'"{row[name]}"' for name in long) for row in (long, deep)]
        data.write_text("\n".join([",".join(long), *cells]), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([long, deep]), data)
    rules_off = FiltersConfig.model_validate(
        {"wording": {"enabled": False}, "rules": dict.fromkeys(RulesConfig().actions, "off")}
    )
    out, gone = tmp_path / "kept.jsonl", tmp_path / "gone.jsonl"
    done = selfinstruct.filter_file(data, out, config=rules_off, rejected=gone)
    assert done.funnel.rejected == {"instruction_too_long": 1}
    assert json.loads(out.read_text("utf-8")) == long
    rejected = json.loads(gone.read_text("utf-8"))
    assert rejected["instruction"] == deep["instruction"]


def test_many_identical_rows(tmp_path: Path) -> None:
    """One is kept, all others go for the same reason, and none is compared with all."""
    count = 20_000
    data = tmp_path / "data.jsonl"
    data.write_bytes((GOOD + b"\n") * count)
    done = selfinstruct.filter_file(data, tmp_path / "out.jsonl", config=OFF)
    assert done.funnel.rejected == {"exact_duplicate": count - 1}


def test_a_line_longer_than_any_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is passed over without being held in memory, and the line after it is read."""
    monkeypatch.setattr(text_files, "MAX_ROW_BYTES", 4096)
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'{"a": "' + b"x" * 3_000_000 + b'"}\n' + GOOD + b"\n")
    reasons, [row], kept = filtered(data)
    assert (reasons, kept) == ({"row_too_long": 1}, 1)
    assert row["text"].startswith('{"a": "xxx')
    data = tmp_path / "data.json"
    data.write_bytes(b'[{"a": "' + b"x" * 3_000_000 + b'"}]')
    with pytest.raises(SeedError, match=r"data.json:1: this record has more than"):
        selfinstruct.filter_file(data, tmp_path / "out.jsonl")


def test_hopeless_files_end_early(tmp_path: Path) -> None:
    """A file of which no row can be judged is given up after its first chunk."""
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'{"text": "a"}\n' * (3 * chunks.CHUNK_ROWS))
    with pytest.raises(SeedError, match=f"none of the first {chunks.CHUNK_ROWS} rows"):
        selfinstruct.filter_file(data, tmp_path / "out.jsonl")
    assert sieve.HOPELESS_ROWS < chunks.CHUNK_ROWS
