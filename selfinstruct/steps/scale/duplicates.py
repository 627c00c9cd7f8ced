"""Near-duplicates over dataframes: texts, bands, pairs, exact similarity, components.

The measure is that of `filters.minhash`: the exact Jaccard similarity of the word n-grams of
instruction, input and output. The rule differs: there, a row is compared with the rows kept before
it; here all rows that are connected by similar pairs are one component, of which the first stays.
A row that is near a row that goes also goes, though it may not be near the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfinstruct.core.errors import RecipeError
from selfinstruct.steps.filters.jaccard_index import grams
from selfinstruct.steps.scale.components import components
from selfinstruct.steps.scale.runner import Stages
from selfinstruct.steps.scale.shards import Shard, texts_of

RECALL = 0.995  # share of the pairs at the threshold that the bands must find
MOST_BANDS = 40
MOST_PARTNERS = 32  # pairs of a text in one bucket: a bucket of copies would have its square
SEED = 1


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """How to cut a signature: three rows a band where `MOST_BANDS` of them reach `RECALL`.

    Few long bands would bring fewer false candidates. But each band of each text is a row that is
    grouped, which costs more than measuring a pair, so here there are few and short ones. Raises
    `RecipeError` where even single rows do not reach it.
    """
    for rows in (3, 2, 1):
        bands = math.ceil(math.log(1 - RECALL) / math.log1p(-min(threshold**rows, 1 - 1e-9)))
        if bands <= MOST_BANDS:
            return bands, rows
    raise RecipeError(
        f"filters.minhash.threshold is {threshold:g}: --engine daft finds near-duplicates from "
        f"{math.ceil(100 * (1 - (1 - RECALL) ** (1 / MOST_BANDS))) / 100:g} up"
    )


def find_duplicates(
    daft: Any,
    stages: Stages,
    shards: Sequence[Shard],
    *,
    threshold: float,
    ngram: int,
    columns: Mapping[str, str] | None,
) -> Any:
    """A dataframe of the rows that go: `row`, `first` (the row that stays), and `fault`.

    Args:
        daft, stages: see `runner`.
        shards: of the dataset.
        threshold: Jaccard similarity from which on a pair is near.
        ngram: words in an n-gram.
        columns: the user's names of columns; see `rows.task.Columns`.
    """
    col = daft.col
    texts = stages.run("texts", _texts(daft, shards, columns))
    distinct = stages.run(
        "distinct",
        texts.where(col("text") != "")
        .groupby("text")
        .agg(col("row").min().alias("first"), col("row").list_agg().alias("rows")),
    )
    bands = stages.run("bands", _bands(daft, distinct, threshold, ngram))
    shared = stages.run(
        "shared",
        bands.groupby("band")
        .agg(col("first").count().alias("texts"))
        .where(col("texts") > 1)
        .select("band"),
    )
    pairs = stages.run("pairs", _pairs(daft, shared, bands))
    edges = stages.run("edges", _edges(daft, pairs, distinct, threshold, ngram))
    stars = components(stages, edges)
    return stages.run("gone", _gone(daft, texts, distinct, stars))


def _texts(daft: Any, shards: Sequence[Shard], columns: Mapping[str, str] | None) -> Any:
    types = daft.DataType
    row = types.struct({"row": types.int64(), "text": types.string(), "fault": types.string()})

    @daft.func.batch(return_dtype=types.list(row), batch_size=1)  # type: ignore[untyped-decorator]
    def read(numbers: Any) -> Any:
        import pyarrow as pa

        tables = [texts_of(shards[number], columns) for number in numbers.to_pylist()]
        ends = [0]
        for table in tables:
            ends.append(ends[-1] + table.num_rows)
        whole = pa.concat_tables(tables).combine_chunks().to_struct_array()
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _one(whole))

    numbers = daft.from_pydict({"shard": list(range(len(shards)))})
    frame = numbers.select(read(daft.col("shard")).alias("found"))
    found = daft.col("found")
    return frame.explode("found").select(
        *(found.get(name).alias(name) for name in ("row", "text", "fault"))
    )


def _one(chunked: Any) -> Any:
    """A chunked array as one array."""
    import pyarrow as pa

    return chunked.combine_chunks() if isinstance(chunked, pa.ChunkedArray) else chunked


def _bands(daft: Any, distinct: Any, threshold: float, ngram: int) -> Any:
    """Each text's bands, a row for each: `band`, a hash of its number and rows, and `first`.

    A text of fewer words than an n-gram has one n-gram, which no other text has: it is left out.
    """
    from daft.functions import minhash

    bands, rows = bands_and_rows(threshold)
    col, types = daft.col, daft.DataType

    @daft.func.batch(return_dtype=types.list(types.uint64()))  # type: ignore[untyped-decorator]
    def fold(signatures: Any) -> Any:
        import numpy as np
        import pyarrow as pa

        found = signatures.to_arrow()
        count = len(found)
        draw = np.random.RandomState(SEED)
        # Random odd multipliers fold a band into 64 bits; a collision costs a comparison.
        odd = draw.randint(0, 2**63, (bands, rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        values = _one(found).flatten().to_numpy(zero_copy_only=False)
        folded = (values.reshape(count, bands, rows).astype(np.uint64) * odd).sum(2, dtype="u8")
        ends = np.arange(count + 1, dtype=np.int32) * bands
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(folded.reshape(-1)))

    signature = minhash(col("text"), num_hashes=bands * rows, ngram_size=ngram, seed=SEED)
    return (
        distinct.where(col("text").split(" ").length() >= ngram)
        .select("first", fold(signature).alias("band"))
        .explode("band")
    )


def _pairs(daft: Any, shared: Any, bands: Any) -> Any:
    """The pairs of texts that share a band, each once: `u` > `v`."""
    col, types = daft.col, daft.DataType
    pair = types.fixed_size_list(types.int64(), 2)

    @daft.func.batch(return_dtype=types.list(pair))  # type: ignore[untyped-decorator]
    def paired(buckets: Any) -> list[list[list[int]]]:
        found = []
        for bucket in buckets.to_pylist():
            texts = sorted(set(bucket))
            near = [
                [texts[after], texts[at]]
                for at in range(len(texts))
                for after in range(at + 1, min(len(texts), at + 1 + MOST_PARTNERS))
            ]
            # In a large bucket, with the first one too: copies of a template find it there.
            near += [[text, texts[0]] for text in texts[1 + MOST_PARTNERS :]]
            found.append(near)
        return found

    buckets = shared.join(bands, on="band").groupby("band").agg(col("first").list_agg())
    found = buckets.select(paired(col("first")).alias("pair")).explode("pair")
    both = found.select(
        col("pair").get(0).alias("u"),
        col("pair").get(1).alias("v"),
    )
    return both.where(col("u") != col("v")).distinct()


def _edges(daft: Any, pairs: Any, distinct: Any, threshold: float, ngram: int) -> Any:
    """The pairs whose exact similarity reaches the threshold."""
    col = daft.col

    @daft.func.batch(return_dtype=daft.DataType.float64())  # type: ignore[untyped-decorator]
    def jaccard(ones: Any, others: Any) -> list[float]:
        found = []
        for one, other in zip(ones.to_pylist(), others.to_pylist(), strict=True):
            left, right = grams(one.split(" "), ngram), grams(other.split(" "), ngram)
            both = len(left & right)
            found.append(both / (len(left) + len(right) - both))
        return found

    def texts(name: str) -> Any:
        return distinct.select(col("first").alias(name), col("text").alias(f"text_{name}"))

    joined = pairs.join(texts("u"), on="u").join(texts("v"), on="v")
    similar = joined.with_column("score", jaccard(col("text_u"), col("text_v")))
    return similar.where(col("score") >= threshold).select("u", "v")


def _gone(daft: Any, texts: Any, distinct: Any, stars: Any) -> Any:
    """Every row that is not the first of its component, and every row without a task."""
    col = daft.col
    labels = stars.select(col("u").alias("first"), col("v").alias("least"))
    rows = distinct.select("first", "rows").join(labels, on="first", how="left").explode("rows")
    copies = rows.select(
        col("rows").alias("row"),
        col("least").fill_null(col("first")).alias("first"),
        daft.lit("").alias("fault"),
    ).where(col("row") != col("first"))
    faulty = texts.where(col("fault") != "").select("row", col("row").alias("first"), "fault")
    return copies.concat(faulty)
