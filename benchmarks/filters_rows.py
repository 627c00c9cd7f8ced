"""Rows by the million for `filters.py`: varied from real ones, a third of them near copies.

    python benchmarks/filters_rows.py OUT.parquet --count 1000000

A fresh row is one of Alpaca's in which two words in five are drawn anew from all of Alpaca's words:
rows of the same origin share few n-grams. A near copy is a fresh row with some words drawn anew:
one in a hundred to one in ten, so that about half of the copies are near by the threshold of 0.7.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from texts import alpaca

BATCH = 50_000
FRESH, COPIES = 0.4, (0.01, 0.1)  # shares of words drawn anew
COPIED = 1 / 3  # of the rows

Ids = npt.NDArray[np.int32]
FIELDS = ("instruction", "input", "output")


def write(path: Path, count: int, seed: int = 1) -> None:
    """Write `count` rows as Parquet, in row groups of `BATCH`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in FIELDS])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for columns in _batches(count, seed):
            writer.write_table(pa.table(columns, schema=schema))


def _batches(count: int, seed: int) -> Iterator[dict[str, list[str]]]:
    rows = alpaca().rows
    numbers: dict[str, int] = {}
    texts = [
        [[numbers.setdefault(word, len(numbers)) for word in row[name].split()] for name in FIELDS]
        for row in rows
    ]
    words = np.array(list(numbers), object)
    shape = np.array([[len(part) for part in text] for text in texts])
    ids: Ids = np.array([one for text in texts for part in text for one in part], np.int32)
    ends = np.concatenate(([0], shape.sum(1).cumsum()))
    rng = np.random.default_rng(seed)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        copies = int(size * COPIED)
        origins = rng.integers(0, len(rows), size - copies)
        made = [ids[ends[at] : ends[at + 1]] for at in origins]
        made = _redrawn(made, np.full(len(made), FRESH), ids, rng)
        copied = rng.integers(0, len(made), copies)
        origins = np.concatenate((origins, origins[copied]))
        near = [made[at] for at in copied]
        made += _redrawn(near, rng.uniform(*COPIES, copies), ids, rng)
        order = rng.permutation(size)
        yield _columns([made[at] for at in order], shape[origins[order]], words)


def _redrawn(
    texts: list[Ids], shares: npt.NDArray[np.float64], ids: Ids, rng: np.random.Generator
) -> list[Ids]:
    """The texts with a share of their words drawn anew."""
    lengths = np.array([len(text) for text in texts])
    whole = np.concatenate(texts)
    at = np.flatnonzero(rng.random(len(whole)) < np.repeat(shares, lengths))
    whole[at] = rng.choice(ids, len(at))
    return np.split(whole, lengths.cumsum()[:-1])


def _columns(texts: list[Ids], shape: Any, words: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in FIELDS}
    for text, lengths in zip(texts, shape.tolist(), strict=True):
        written = words[text].tolist()
        start = 0
        for name, length in zip(FIELDS, lengths, strict=True):
            found[name].append(" ".join(written[start : start + length]))
            start += length
    return found


def main() -> None:
    """Write the rows that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    write(given.out, given.count)


if __name__ == "__main__":
    main()
