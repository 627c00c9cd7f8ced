"""The first stage: each row's words, in groups of shards; and the distinct texts among all.

Copies within a group are found while it is read, so that a text that a million rows share is handed
on once a group.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from selfinstruct.steps.filters.minhash import MAX_CHARACTERS
from selfinstruct.steps.filters.rouge import MAX_WORDS
from selfinstruct.steps.rows.arrow_files import batch_chunks
from selfinstruct.steps.rows.chunks import Fault
from selfinstruct.steps.rows.task import Columns
from selfinstruct.steps.scale.bands import save_bands
from selfinstruct.steps.scale.parts import load, save
from selfinstruct.steps.scale.plan import Plan, said
from selfinstruct.steps.scale.runner import load_daft
from selfinstruct.steps.scale.shards import batches_of
from selfinstruct.steps.words import unicode_words


def read_texts(plan: Plan, number: int) -> dict[str, int]:
    """Read a group: `texts` gets `row` and `text` (words, spaces between) of each distinct text.

    `settled` gets the rows that need no comparison: copies of a row in the group, with that row as
    `first`, and rows without a task, with their `fault`: the reason and its detail, a tab between.
    """
    import numpy as np
    import pyarrow as pa

    judge = Columns(plan.columns)
    judged = sorted(judge.judged)
    texts: dict[str, int] = {}
    settled: list[tuple[int, int, str]] = []
    for shard in plan.groups[number]:
        row = shard.first
        for chunk in batch_chunks(batches_of(shard), shard.name, judged):
            for found in chunk.rows:
                task = judge.task(found)
                if isinstance(task, Fault):
                    settled.append((row, row, f"{task.reason}\t{task.detail}"))
                elif words := _words(f"{task.instruction}\n{task.input}\n{task.output}"):
                    first = texts.setdefault(words, row)
                    if first != row:
                        settled.append((row, first, ""))
                row += 1
    part = np.fromiter((crc32(text.encode()) % plan.parts for text in texts), np.int64, len(texts))
    rows = pa.array(texts.values(), pa.int64())
    table = pa.table({"row": rows, "text": pa.array(texts, pa.large_string())})
    save(plan.file("texts", number), table, part, plan.parts)
    save(plan.file("settled", number), _settled(settled), None, 1)
    return said(rows=len(settled) + len(texts))


def _words(text: str) -> str:
    words = " ".join(unicode_words(text[:MAX_CHARACTERS])[:MAX_WORDS])
    # Half of a surrogate pair is no text to Arrow, and no letter either.
    return words if words.isascii() else words.encode("utf-8", "replace").decode()


def _settled(rows: list[tuple[int, int, str]]) -> Any:
    import pyarrow as pa

    types = {"row": pa.int64(), "first": pa.int64(), "fault": pa.string()}
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    arrays = [pa.array(cells, kind) for cells, kind in zip(columns, types.values(), strict=True)]
    return pa.table(dict(zip(types, arrays, strict=True)))


def find_distinct(plan: Plan, part: int) -> dict[str, int]:
    """The distinct texts of a part: `distinct` gets `node` and `text` in order of the nodes.

    `copies` gets the other rows with such a text, and `bands` what `save_bands` says.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    daft = load_daft()
    col = daft.col
    grouped = daft.from_arrow(load(plan.files("texts"), [part])).groupby("text")
    found = grouped.agg(col("row").min().alias("first"), col("row").list_agg().alias("rows"))
    found = found.with_column("node", col("first") * plan.parts + part).sort("node").to_arrow()
    table = found.select(["node", "text"]).combine_chunks()
    save(plan.file("distinct", part), table, None, 1)
    rows = found["rows"].combine_chunks()
    owner = found["node"].combine_chunks().take(rows.value_parent_indices())
    copies = pa.table({"row": rows.flatten(), "node": owner})
    is_copy = pc.not_equal(copies["row"], pc.divide(copies["node"], plan.parts))
    copies = copies.filter(is_copy)
    save(plan.file("copies", part), copies, None, 1)
    save_bands(daft, plan, part, table)
    return said(texts=table.num_rows, copies=copies.num_rows)
