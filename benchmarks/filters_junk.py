"""A job of `filters_drive.py`: write the files that the part `junk` of `filters.py` filters.

Whole rows of the kind that `filter` is to survive in any number, into a folder that is named.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from texts import alpaca

from selfinstruct.steps.rows.text_files import json_list

Said = dict[str, object]
SAME = {"instruction": "Name three old rivers", "input": "", "output": "Rhine, Danube, Elbe"}
MEGABYTES = 10


def make(given: argparse.Namespace) -> Said:
    """Write the file that is asked for into `given.folder`."""
    path = Path(given.folder) / f"{given.kind}.jsonl"
    rows = {"identical": identical, "novel": novel, "long": long_texts}[given.kind]
    with path.open("w", encoding="utf-8") as file:
        for row in rows(given.count):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"rows": given.count, "mb": path.stat().st_size / 2**20}


def identical(count: int) -> Iterator[dict[str, str]]:
    """The same row again and again."""
    for _ in range(count):
        yield SAME


def novel(count: int) -> Iterator[dict[str, str]]:
    """Rows of Alpaca's lengths of words drawn as often as Alpaca's rows have them: all are new."""
    rows, rng = alpaca().rows, random.Random(1)
    words = [word for row in rows for word in row["output"].split() if word.isalpha()]
    lengths = {name: [len(row[name].split()) for row in rows] for name in rows[0]}
    for _ in range(count):
        yield {
            name: " ".join(
                rng.choices(words, k=max(8, rng.choice(sizes)) if name != "input" else 0)
            )
            for name, sizes in lengths.items()
        }


def long_texts(count: int) -> Iterator[dict[str, str]]:
    """Rows with an output of 10 MB: one word on and on, a phrase again and again, and prose."""
    rng, size = random.Random(1), MEGABYTES << 20
    words = [word for row in alpaca(2000).rows for word in row["output"].split() if word.isalpha()]
    prose = " ".join(rng.choices(words, k=size // 4))[:size]
    for n, output in enumerate(("x" * size, ("a river runs. " * size)[:size], prose)[:count]):
        yield {"instruction": f"Tell me tale number {n}", "input": "", "output": output}


def reading(given: argparse.Namespace) -> Said:
    """Read Alpaca's rows as one JSON list, beside the standard library's reading of it all."""
    path = Path(given.folder) / "list.json"
    path.write_text(json.dumps(alpaca(given.count).rows, indent=4), "utf-8")
    begin = time.process_time()
    with path.open("rb") as file:
        rows = sum(1 for _ in json_list(file, path.name))
    took = time.process_time() - begin
    begin = time.process_time()
    json.loads(path.read_bytes())
    return {"rows": rows, "cpu_s": took, "json_loads_cpu_s": time.process_time() - begin}
