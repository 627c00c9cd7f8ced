"""The dataset's rows, its Parquet files and the formats it is exported to.

Every file is a function of the rows alone: fixed schemas and row groups, no dates, and nothing
about the writer beyond the library's version, which Parquet asks for (`created_by`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson

from selfinstruct.core.money import to_dollars
from selfinstruct.core.types import Record, SeedTask
from selfinstruct.steps.seeds.given import Given

Row = dict[str, Any]
Config = Literal["default", "messages", "rejected"]

ROW_GROUP = 5000
COMPRESSION = "zstd"
TEXT_COLUMNS = ("instruction", "input", "output")
MESSAGES = "messages"  # the column of conversations, in datasets that have some


def record_row(record: Record) -> Row:
    """A machine-written record as a row of the default config, lineage included."""
    c = record.candidate
    return {
        "id": c.id,
        "instruction": c.instruction,
        "input": c.input,
        "output": c.output,
        "category": c.category,
        "strategy": c.strategy,
        "teacher": c.teacher,
        "model": c.model,
        "parents": list(c.parents),
        "prompt_version": c.prompt_version,
        "requests": list(c.requests),
        "cost_usd": to_dollars(c.cost),
        "source": "machine",
        "flags": list(record.verdict.flags),
    }


def seed_row(seed: SeedTask) -> Row:
    """A human-written example as a row of the default config: it has no lineage and no cost."""
    return _unwritten(seed, "human")


def given_row(record: Given) -> Row:
    """A record that was there already as a row of the default config, with its conversation."""
    row = _unwritten(record, "given")
    return row if record.messages is None else row | {MESSAGES: record.messages}


def _unwritten(record: SeedTask | Given, source: str) -> Row:
    return {
        "id": record.id,
        "instruction": record.instruction,
        "input": record.input,
        "output": record.output,
        "category": record.category,
        "strategy": "",
        "teacher": "",
        "model": "",
        "parents": [],
        "prompt_version": "",
        "requests": [],
        "cost_usd": 0.0,
        "source": source,
        "flags": [],
    }


def rejected_row(record: Record) -> Row:
    """A rejected candidate as a row of the rejected config: with its reason, and near what."""
    v = record.verdict
    return record_row(record) | {
        "reason": v.reason,
        "detail": v.detail,
        "neighbour": v.neighbour,
        "score": v.score,
    }


def messages_row(row: Row, system: str = "") -> Row:
    """A default row as a conversation; the input follows the instruction after a blank line.

    `system` is the first message of one that has none of its own.
    """
    if talk := row.get(MESSAGES):
        opened = not system or talk[0]["role"] == "system"
        opening = [] if opened else [{"role": "system", "content": system}]
        return {"id": row["id"], "messages": [*opening, *talk]}
    asked = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
    turns = [("system", system)] if system else []
    turns += [("user", asked), ("assistant", row["output"])]
    return {"id": row["id"], "messages": [{"role": who, "content": text} for who, text in turns]}


def schema(config: Config, more: Iterable[str] = ()) -> Any:
    """The config's Arrow schema; `more` are columns of numbers, or `MESSAGES`."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    talk = pa.list_(pa.struct([("role", text), ("content", text)]))
    if config == "messages":
        return pa.schema([("id", text), (MESSAGES, talk)])
    fields = [(name, text) for name in ("id", *TEXT_COLUMNS, "category", "strategy")]
    fields += [("teacher", text), ("model", text), ("parents", texts), ("prompt_version", text)]
    fields += [("requests", texts), ("cost_usd", pa.float64()), ("source", text)]
    fields += [("flags", texts)]
    if config == "rejected":
        fields += [("reason", text), ("detail", text), ("neighbour", text), ("score", pa.float64())]
    fields += [(name, talk if name == MESSAGES else pa.float64()) for name in more]
    return pa.schema(fields)


def write_parquet(path: Path, config: Config, rows: Iterable[Row], more: Iterable[str] = ()) -> int:
    """Write `rows` to `path` as they come; returns how many there were. Raises `OSError`.

    `more` names columns past those of the config, see `schema`; a row may lack them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    layout, written, source = schema(config, more), 0, iter(rows)
    with pq.ParquetWriter(path, layout, compression=COMPRESSION) as writer:
        while group := list(islice(source, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=layout), ROW_GROUP)
            written += len(group)
    return written


def read_parquet(path: Path) -> Iterator[Row]:
    """The rows of a file that `write_parquet` wrote."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP):
            yield from batch.to_pylist()


def to_alpaca(rows: Iterable[Row], system: str) -> bytes:
    """Stanford Alpaca's file: one JSON list of instruction, input and output."""
    return _json_list({name: row[name] for name in TEXT_COLUMNS} for row in rows)


def to_jsonl(rows: Iterable[Row], system: str) -> bytes:
    """One JSON object a line, with every column."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def to_sharegpt(rows: Iterable[Row], system: str) -> bytes:
    """ShareGPT's file: one JSON list of conversations (from, value)."""
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    talks = (messages_row(row, system) for row in rows)
    return _json_list(
        {
            "id": talk["id"],
            "conversations": [
                {"from": speakers[turn["role"]], "value": turn["content"]}
                for turn in talk["messages"]
            ],
        }
        for talk in talks
    )


def to_messages(rows: Iterable[Row], system: str) -> bytes:
    """One conversation (role, content) a line, as OpenAI's fine-tuning and TRL read it."""
    return b"".join(orjson.dumps(messages_row(row, system)) + b"\n" for row in rows)


def to_csv(rows: Iterable[Row], system: str) -> bytes:
    """CSV with a header; lists of ids are joined by spaces."""
    rows = list(rows)
    scores = dict.fromkeys(name for row in rows for name in row if name.startswith("score_"))
    names = [*schema("default").names, *scores]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        cells = (row.get(name, "") for name in names)
        writer.writerow(" ".join(cell) if isinstance(cell, list) else cell for cell in cells)
    return text.getvalue().encode()


def _json_list(values: Iterable[Row]) -> bytes:
    return b"[\n" + b",\n".join(orjson.dumps(value) for value in values) + b"\n]\n"


SINGLE = ("alpaca", "csv")  # hold one question and one answer a record

EXPORTS: dict[str, Callable[[Iterable[Row], str], bytes]] = {
    "alpaca": to_alpaca,
    "csv": to_csv,
    "jsonl": to_jsonl,
    "messages": to_messages,
    "sharegpt": to_sharegpt,
}
