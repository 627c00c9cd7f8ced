"""`filter` and `filter_file`: any dataset through the filters, as it is."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.cli.main import cli
from selfinstruct.core.errors import FolderError, RecipeError, SeedError, UserError
from selfinstruct.core.sections.filters import CorrectnessConfig, FiltersConfig, RulesConfig
from selfinstruct.core.types import SeedTask
from selfinstruct.steps.rows.sinks import FORMATS
from tests.runs import WORDS

OFF = FiltersConfig.model_validate({"wording": {"enabled": False}})


def row(number: int, **more: Any) -> dict[str, Any]:
    """A row unlike the others, with columns of the user's own."""
    word, other = WORDS[number % len(WORDS)], WORDS[(number * 7 + 3) % len(WORDS)]
    return {
        "instruction": f"Tell {word} story number{number} about{number} the {other}{number}",
        "input": "",
        "output": f"Once{number} upon{number} a{number} {word} there was{number} {other}{number}",
        "rating": number / 4,
        "tags": [word, other],
    } | more


ROWS = [row(n) for n in range(6)]
TWIN = {**ROWS[1], "rating": 9.5}
EMPTY = {**row(7), "output": " "}
ALL = [*ROWS[:3], TWIN, EMPTY, *ROWS[3:]]


def write(path: Path, rows: Sequence[Any]) -> Path:
    """`rows` as the file `path`, in the format of its ending."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2), "utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue(), "utf-8", newline="")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if path.suffix == ".json":
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return found
    if path.suffix == ".parquet":
        table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return table
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


# -- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("target", FORMATS)
def test_rows_keep_their_columns_in_every_format(source: str, target: str, tmp_path: Path) -> None:
    """Kept and rejected rows have all their columns, whatever is read and written."""
    data = write(tmp_path / f"data.{source}", ALL)
    out, gone = tmp_path / f"out.{target}", tmp_path / f"gone.{target}"
    summary = selfinstruct.filter_file(data, out, config=OFF, rejected=gone)
    assert (summary.funnel.read, summary.funnel.kept) == (8, 6)
    assert summary.funnel.rejected == {"empty_output": 1, "exact_duplicate": 1}
    kept, rejected = read(out), read(gone)
    if target == "csv":
        assert [one["instruction"] for one in kept] == [one["instruction"] for one in ROWS]
        assert [json.loads(one["tags"]) for one in kept] == [one["tags"] for one in ROWS]
        assert {name: rejected[0][name] for name in ("rating", "filter_reason")} == {
            "rating": "9.5",
            "filter_reason": "exact_duplicate",
        }
        return
    assert kept == ROWS
    mine = [{name: one[name] for name in TWIN} for one in rejected]
    assert mine == [TWIN, EMPTY]
    assert rejected[0]["filter_row"].startswith(f"data.{source}:")
    assert rejected[0]["filter_neighbour"].startswith(f"data.{source}:")
    assert rejected[0]["filter_neighbour"] in rejected[0]["filter_detail"]


def test_json_lines_pass_through_byte_for_byte(tmp_path: Path) -> None:
    """Digits, key order and escapes of a row are those of the file; a row over lines is joined."""
    line = (
        '{"n": 123456789012345678901234567890, "f": 1.10, "instruction": "Say it in caf\\u00e9 '
        'style", "output": "Caf\\u00e9 it is"}'
    )
    spread = line.replace(", ", ",\r\n    ")
    data = tmp_path / "data.jsonl"
    data.write_text(f"\ufeff{line}\n\n", "utf-8")
    selfinstruct.filter_file(data, tmp_path / "out.jsonl", config=OFF)
    assert (tmp_path / "out.jsonl").read_text("utf-8") == line + "\n"
    listed = tmp_path / "data.json"
    listed.write_text(f"[\n{spread}]", "utf-8")
    selfinstruct.filter_file(listed, tmp_path / "list.jsonl", config=OFF)
    assert (tmp_path / "list.jsonl").read_text("utf-8") == line + "\n"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """Parquet to Parquet keeps small integers, large strings and what the metadata says."""
    schema = pa.schema(
        [
            ("instruction", pa.large_string()),
            ("output", pa.string()),
            ("level", pa.int8()),
            ("when", pa.timestamp("us")),
        ],
        metadata={"owner": "me"},
    )
    rows = [{**{k: one[k] for k in ("instruction", "output")}, "level": 3} for one in ALL]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "data.parquet")
    selfinstruct.filter_file(tmp_path / "data.parquet", tmp_path / "out.parquet", config=OFF)
    found = pq.read_schema(tmp_path / "out.parquet")
    assert found.equals(schema)
    assert found.metadata[b"owner"] == b"me"


def test_columns_that_come_late_or_change(tmp_path: Path) -> None:
    """A column of later rows is in the Parquet file; one of two kinds is refused by its name."""
    late = [*ROWS[:2], {**ROWS[2], "extra": {"deep": 1}}, {**ROWS[3], "rating": 2}]
    data = write(tmp_path / "data.jsonl", late)
    selfinstruct.filter_file(data, tmp_path / "out.parquet", config=OFF)
    assert [one["extra"] for one in read(tmp_path / "out.parquet")] == [
        None,
        None,
        {"deep": 1},
        None,
    ]
    data = write(tmp_path / "mixed.jsonl", [*ROWS[:2], {**ROWS[2], "rating": "high"}])
    with pytest.raises(UserError, match=r"column 'rating' cannot be written as Parquet.*jsonl"):
        selfinstruct.filter_file(data, tmp_path / "mixed.parquet", config=OFF)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data.jsonl",
        "mixed.jsonl",
        "out.parquet",
    ]


def test_a_folder_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    """A name without an ending is a folder that `datasets` loads, rejects as a config of it."""
    datasets = pytest.importorskip("datasets")
    data = write(tmp_path / "data.jsonl", ALL)
    out = tmp_path / "clean"
    selfinstruct.filter_file(data, out, config=OFF)
    assert read(out / "data" / "train-00000-of-00001.parquet") == ROWS
    loaded = datasets.load_dataset(str(out), "rejected", split="train", cache_dir=tmp_path / "c")
    assert loaded["filter_reason"][:] == ["exact_duplicate", "empty_output"]
    again = selfinstruct.filter_file(out, tmp_path / "again", config=OFF)
    assert again.funnel.rejected == {}
    assert not (tmp_path / "again" / "rejected").exists()


def test_a_saved_dataset_and_its_held_out_split(tmp_path: Path) -> None:
    """A `save_to_disk` folder is read by its training split, and what was left is named."""
    datasets = pytest.importorskip("datasets")
    splits = {
        "train": datasets.Dataset.from_list(ALL),
        "test": datasets.Dataset.from_list([row(9)]),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    summary = selfinstruct.filter_file(tmp_path / "saved", tmp_path / "out.parquet", config=OFF)
    assert summary.funnel.kept == 6
    assert [Path(file).parent.name for file in summary.left] == ["test"]


def test_conversations_and_other_layouts(tmp_path: Path) -> None:
    """Messages, ShareGPT, prompt/completion, a CSV with capitals, and names the user gives."""
    talk = [{"role": "system", "content": "Be short"}, {"role": "user", "content": "Name a tree"}]
    reply = {"role": "assistant", "content": "An old oak"}
    shared = [{"from": "human", "value": "Count to two"}, {"from": "gpt", "value": "One two"}]
    rows = [
        {"messages": [*talk, reply], "lang": "en"},
        {"messages": [*talk, {**reply, "content": [{"type": "text", "text": "An old oak"}]}]},
        {"conversations": shared},
        {"prompt": talk[1:], "completion": [reply]},
        {"question": "How many legs has a spider?", "answer": 8},
        {"messages": talk},
    ]
    result = selfinstruct.filter(rows, config=OFF)
    assert result.kept == [rows[0], rows[2], rows[4]]
    assert [(one.position, one.reason) for one in result.rejected] == [
        (1, "exact_duplicate"),
        (3, "not_novel"),  # another task, without the system's words, in the same words
        (5, "missing_field"),
    ]
    table = tmp_path / "data.csv"
    table.write_text("Instruction;Output\nName a river;The Rhine\n", "utf-8")
    assert selfinstruct.filter(table, config=OFF).kept == [
        {"Instruction": "Name a river", "Output": "The Rhine"}
    ]
    pairs = [{"ask": "Name a river", "chosen": "The Rhine", "rejected": "Oak"}]
    named = selfinstruct.filter(
        pairs, config=OFF, columns={"instruction": "ask", "output": "chosen"}
    )
    assert named.kept == pairs
    with pytest.raises(UserError, match="'reply' is no part of a task"):
        selfinstruct.filter(pairs, columns={"reply": "chosen"})


# -- what is judged against what ------------------------------------------------------------------


def test_against_other_files(tmp_path: Path) -> None:
    """Rows near those of another file go, and that file is not written."""
    bench = write(tmp_path / "bench.jsonl", [ROWS[0], ROWS[4]])
    data = write(tmp_path / "data.jsonl", ROWS)
    summary = selfinstruct.filter_file(data, tmp_path / "o.jsonl", config=OFF, against=[bench])
    assert summary.against == 2
    assert read(tmp_path / "o.jsonl") == [ROWS[n] for n in (1, 2, 3, 5)]
    result = selfinstruct.filter(ROWS, config=OFF, against=[[ROWS[0]]])
    assert result.rejected[0].nearest == ROWS[0]
    bad = write(tmp_path / "bad.jsonl", [ROWS[0], {"instruction": "No answer to this one"}])
    with pytest.raises(SeedError, match=r"bad.jsonl:2: is no task \(missing_field\)"):
        selfinstruct.filter(ROWS, against=[bad])


def test_rules_on_english_wording_are_for_runs(tmp_path: Path) -> None:
    """Tasks on files, and in other languages, are kept by default; the preset and a run reject."""
    told = [
        {"instruction": "Explain how a file is opened in Python", "output": "With open()."},
        {"instruction": "Écris un poème sur la mer du Nord", "output": "La mer est grise."},
        {"instruction": "Opisz krótko historię miasta Gdańsk", "output": "To stare miasto."},
    ]
    assert selfinstruct.filter(told).kept == told
    reasons = {"forbidden_word": 1, "starts_with_non_ascii": 1}
    assert selfinstruct.filter(told, config="alpaca").funnel.rejected == reasons
    assert selfinstruct.filter(told, wording={"enabled": True}).funnel.rejected == reasons
    data, out = write(tmp_path / "data.jsonl", told), tmp_path / "out.jsonl"
    assert selfinstruct.filter_file(data, out).funnel.kept == 3
    command = ["filter", str(data), "-o", str(out), "--force", "--filters", "alpaca", "--json"]
    done = CliRunner().invoke(cli, command)
    assert json.loads(done.stdout)["funnel"]["rejected"] == reasons


def test_the_preset_alpaca_has_alpacas_checks_alone(tmp_path: Path) -> None:
    """Three words are too few, ROUGE-L decides by a to z, and no other filter looks."""
    told = [
        {"instruction": "Name three rivers", "output": "Rhine, Nile, Po"},
        {"instruction": "Name three long rivers", "output": "As an AI language model, I cannot"},
        {"instruction": "Name three long rivers!", "output": "Rhine, Nile, Po"},
        {"instruction": "Work out two plus two", "output": "2 + 2 = 5"},
    ]
    found = selfinstruct.filter(told, config="alpaca")
    assert found.funnel.rejected == {"instruction_too_short": 1, "not_novel": 1}
    every = RulesConfig().actions | CorrectnessConfig().actions
    chosen = found.config.rules.actions | found.config.correctness.actions
    assert chosen == dict.fromkeys(every, "off")


def test_the_same_verdicts_as_a_run(tmp_path: Path) -> None:
    """The tool judges as the judge of a run does, row by row."""
    from selfinstruct.core.types import Candidate
    from selfinstruct.steps.filters.judge import Judge, build_filters

    judge = Judge(build_filters(FiltersConfig()))
    judge.prime([SeedTask(id="s", instruction=ROWS[5]["instruction"], output="x")])
    wanted = []
    for number, one in enumerate(ALL):
        texts = {name: one[name].strip() for name in ("instruction", "input", "output")}
        candidate = Candidate(id=str(number), slot=0, index=number, strategy="", **texts)
        wanted.append(judge.judge(candidate).reason)
    seeds = [{"instruction": ROWS[5]["instruction"], "output": "x"}]
    result = selfinstruct.filter(ALL, config=FiltersConfig(), against=[seeds])
    found = {one.position: one.reason for one in result.rejected}
    assert [found.get(n, "") for n in range(len(ALL))] == wanted
    assert "not_novel" in wanted or "conflicting_output" in wanted


# -- the three lines ------------------------------------------------------------------------------


def test_a_result_explains_itself() -> None:
    """Each rejected row comes with its reason, its nearest row, the score and the threshold."""
    near = {**ROWS[1], "instruction": ROWS[1]["instruction"] + " again", "output": "Another tale"}
    result = selfinstruct.filter([*ROWS, near], rouge={"threshold": 0.6}, min_words=2)
    assert result.kept == ROWS
    assert result.config.rouge.threshold == 0.6
    assert result.config.min_words == 2
    [found] = result.because("not_novel")
    assert (found.position, found.row, found.nearest) == (6, near, ROWS[1])
    assert found.threshold == 0.6
    assert found.score is not None
    assert 0.6 < found.score < 1
    assert repr(result) == "FilterResult(6 of 7 rows kept; not_novel 1 went)"
    assert selfinstruct.filter([]).kept == []
    with pytest.raises(RecipeError, match=r"filter: unknown key 'filters.rogue'; did you mean"):
        selfinstruct.filter(ROWS, rogue={"threshold": 0.6})


def test_tables_come_back_as_what_they_were() -> None:
    """A data frame, an Arrow table and a dataset give one of their kind."""
    pandas = pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    frame = pandas.DataFrame(ALL, index=list("abcdefgh"))
    kept = selfinstruct.filter(frame, config=OFF).kept
    assert list(kept.index) == list("abcfgh")
    assert kept.equals(frame.loc[list("abcfgh")])
    table = pa.Table.from_pylist(ALL)
    assert selfinstruct.filter(table, config=OFF).kept.to_pylist() == ROWS
    data = datasets.Dataset.from_list(ALL)
    assert selfinstruct.filter(data, config=OFF).kept[:] == datasets.Dataset.from_list(ROWS)[:]
    with pytest.raises(UserError, match="one of its splits"):
        selfinstruct.filter(datasets.DatasetDict({"train": data}))
    with pytest.raises(UserError, match="data is a number"):
        selfinstruct.filter(7)


# -- the command ----------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Any:
    """The command line in this process."""
    return CliRunner().invoke(cli, ["filter", *map(str, arguments)])


def test_the_command_and_its_funnel(tmp_path: Path) -> None:
    """The table and the JSON add up; --explain has a line for each row with its reason."""
    data = write(tmp_path / "data.jsonl", ALL)
    done = run(data, "-o", tmp_path / "a.json", "--explain", "--set", "filters.min_words=2")
    assert done.exit_code == 0, done.output
    assert re.search(r"\b8 +rows read", done.output)
    lines = [line.split("\t") for line in done.output.splitlines() if "\t" in line]
    assert [line[1] for line in lines] == [
        *["kept"] * 3,
        "exact_duplicate",
        "empty_output",
        *["kept"] * 3,
    ]
    assert lines[3][2] == "the same as data.jsonl:2"
    done = run(data, "-o", tmp_path / "b.json", "--json")
    told = json.loads(done.output)["funnel"]
    assert told["read"] == told["kept"] + sum(told["rejected"].values()) == 8


def test_the_page_shows_rows_of_each_reason_and_flag(tmp_path: Path) -> None:
    """Ten at most of each, by place and with what was found, escaped and cut; all are counted."""
    rows: list[Any] = [row(n) for n in range(30)]
    rows += [row(n, output="") for n in range(30, 55)]
    rows += [row(n, output=f"Write to jane{n}@acme-corp.com.") for n in range(55, 58)]
    rows += [7, row(58, instruction="<script>alert(1)</script> " + "w " * 9000)]
    data, page = write(tmp_path / "data.jsonl", rows), tmp_path / "page.html"
    given = ("--set", "filters.rouge.enabled=false", "--report", page)
    done = run(data, "-o", tmp_path / "out.jsonl", *given)
    assert done.exit_code == 0, done.output
    assert str(page) in done.output
    html = page.read_text("utf-8")
    assert html.count("data.jsonl:") == 10 + 3 + 1 + 1
    assert "<td>it has no output</td>" in html
    assert re.search(r"empty output<small>25</small>", html)
    assert "jane56@acme-corp.com" in html
    assert "<script>alert" not in html
    assert "more characters" in html
    assert len(html) < 100_000
    again = run(data, "-o", tmp_path / "out2.jsonl", *given)
    assert "--force replaces it" in str(again.exception)
    wrong = run(data, "-o", tmp_path / "out3.jsonl", "--report", tmp_path / "page.pdf")
    assert "ends in .html" in str(wrong.exception)


def test_the_pages_rows_are_drawn_from_the_whole_dataset(tmp_path: Path) -> None:
    """They are not the first ones alone, and the same data has the same."""
    data = write(tmp_path / "data.jsonl", [row(0), *(row(n, output="") for n in range(1, 400))])
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        selfinstruct.filter_file(data, page.with_suffix(".jsonl"), report=page)
    html = pages[0].read_text("utf-8")
    assert html == pages[1].read_text("utf-8")
    places = [int(place) for place in re.findall(r"data\.jsonl:(\d+)", html)]
    assert len(places) == 10
    assert max(places) > 100


def test_filters_from_a_file(tmp_path: Path) -> None:
    """A recipe's section, or the section alone; settings on the command line go before it."""
    data = write(tmp_path / "data.jsonl", ROWS)
    alone = tmp_path / "filters.yaml"
    alone.write_text("min_words: 50\n", "utf-8")
    assert json.loads(run(data, "-o", "-", "--filters", alone).stderr.split()[0]) == 6
    whole = tmp_path / "recipe.yaml"
    whole.write_text("seeds: x\nfilters: {min_words: 50}\n", "utf-8")
    out = tmp_path / "o.jsonl"
    done = run(data, "-o", out, "--filters", whole, "--set", "filters.min_words=1")
    assert done.exit_code == 0, done.output
    assert read(out) == ROWS
    done = run(data, "-o", out, "--set", "generate.target=3")
    assert "only filters.* can be set here" in str(done.exception)
    done = run(data, "-o", out, "--set", "filters.rouge.treshold=3")
    assert "did you mean 'threshold'" in str(done.exception)


def test_standard_input_and_output(tmp_path: Path) -> None:
    """``-`` reads and writes JSON lines, and words go to standard error."""
    lines = "".join(json.dumps(one) + "\n" for one in ALL)
    done = subprocess.run(
        [sys.executable, "-m", "selfinstruct", "filter", "-", "-o", "-"],
        input=lines,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == ROWS
    assert "rows read" in done.stderr


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """What is there stays without --force; what is read is never written; nor a strange folder."""
    data = write(tmp_path / "data.jsonl", ROWS)
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n", "utf-8")
    with pytest.raises(FolderError, match="is there already; --force replaces it"):
        selfinstruct.filter_file(data, out)
    assert out.read_text("utf-8") == "mine\n"
    selfinstruct.filter_file(data, out, force=True)
    assert read(out) == ROWS
    for wrong in (data, tmp_path):
        with pytest.raises(UserError, match="is read, so it cannot be written"):
            selfinstruct.filter_file(data, wrong, fmt="hub", force=True)
    with pytest.raises(UserError, match="cannot go to one file"):
        selfinstruct.filter_file(data, out, rejected=out, force=True)
    with pytest.raises(UserError, match="unknown ending"):
        selfinstruct.filter_file(data, tmp_path / "out.txt")
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("x", "utf-8")
    with pytest.raises(FolderError, match="holds other files"):
        selfinstruct.filter_file(data, strange, force=True)
    assert [path.name for path in strange.iterdir()] == ["thesis.tex"]


def test_a_fault_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """When the file breaks off after rows were written, no output appears and none is replaced."""
    data = tmp_path / "data.json"
    data.write_text(json.dumps(ALL, indent=1)[:-200], "utf-8")
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n", "utf-8")
    with pytest.raises(SeedError, match=r"data.json:\d+: the file ends inside this record"):
        selfinstruct.filter_file(data, out, rejected=tmp_path / "gone.parquet", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "out.jsonl"]
    assert out.read_text("utf-8") == "mine\n"


# -- invariants -----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TEXT = st.text(max_size=30)
TASK = st.fixed_dictionaries(
    {}, optional={"instruction": TEXT | JSON, "input": TEXT, "output": TEXT | JSON, "x": JSON}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(TASK | JSON, max_size=12))
def test_every_row_comes_out_once(rows: list[Any]) -> None:
    """Whatever JSON holds, rows kept and rejected are the rows read, in order and unchanged."""
    good = {"instruction": "Name three old rivers", "output": "Rhine, Danube, Elbe"}
    data = [good, *rows]
    result = selfinstruct.filter(data, config=OFF)
    gone = {one.position: one.row for one in result.rejected}
    kept = iter(result.kept)
    assert [gone[n] if n in gone else next(kept) for n in range(len(data))] == data
    assert next(kept, None) is None
    funnel = result.funnel
    assert funnel.read == len(data) == funnel.kept + sum(funnel.rejected.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON, max_size=8), st.sampled_from([None, 1, 4]), st.integers(1, 40))
def test_a_json_list_in_windows_of_any_size(rows: list[Any], indent: int | None, size: int) -> None:
    """A list read in small pieces has the elements, and the lines, that it has as a whole."""
    from selfinstruct.steps.rows import text_files

    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    before, text_files._WINDOW = text_files._WINDOW, size
    try:
        found = list(text_files.json_list(io.BytesIO(text.encode("utf-8", "surrogatepass")), "f"))
    finally:
        text_files._WINDOW = before
    assert [one.value for one in found] == rows
    assert [json.loads(one.raw or b"") for one in found] == rows
    assert all(b"\n" not in (one.raw or b"") for one in found)
