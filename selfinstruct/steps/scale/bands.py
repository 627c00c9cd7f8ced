"""Candidates for near-duplicates: texts that share a band of their MinHash signatures.

A bucket of texts that share a band is not compared in whole: a text is paired with the next
`MOST_PARTNERS` and with the first, as a bucket of copies would have its square of pairs. The texts
of larger buckets get a second signature with longer bands, which few texts share that are not near:
what the first one missed among them, the second one finds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from selfinstruct.core.errors import RecipeError
from selfinstruct.steps.scale.parts import columns, load, save
from selfinstruct.steps.scale.plan import Plan, said
from selfinstruct.steps.scale.runner import load_daft

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

RECALL = 0.995  # share of the pairs at the threshold that the bands must find
MOST_PARTNERS = 32


class Level(NamedTuple):
    """A signature, and where what is found by it is kept."""

    bands: str
    pairs: str
    crowded: str
    seed: int
    rows: tuple[int, ...]  # of a band: the first of these for which `most` bands reach `RECALL`
    most: int

    def shape(self, threshold: float) -> tuple[int, int]:
        """Bands, and rows of each. Raises `RecipeError` where even single rows are too many."""
        for rows in self.rows:
            shared = min(threshold**rows, 1 - 1e-9)
            bands = math.ceil(math.log(1 - RECALL) / math.log1p(-shared))
            if bands <= self.most:
                return bands, rows
        least = math.ceil(100 * (1 - (1 - RECALL) ** (1 / self.most))) / 100
        raise RecipeError(
            f"filters.minhash.threshold is {threshold:g}: --engine daft finds near-duplicates from "
            f"{least:g} up"
        )


# Few long bands would bring fewer false candidates. But each band of each text is a row that is
# grouped, which costs more than measuring a pair, so the first signature has few and short ones.
FIRST = Level("bands", "pairs", "crowded", seed=1, rows=(3, 2, 1), most=40)
SECOND = Level("long-bands", "long-pairs", "", seed=2, rows=(6, 5, 4, 3, 2, 1), most=120)


def save_bands(daft: Any, plan: Plan, part: int, texts: Any, level: Level = FIRST) -> None:
    """Write each text's bands: `band`, a hash of a band's rows, and `node`; cut by the band.

    A text of fewer words than an n-gram has one n-gram, which no other text has: it is left out.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from daft.functions import minhash

    bands, rows = level.shape(plan.threshold)
    enough = pc.greater_equal(pc.count_substring(texts["text"], " "), plan.ngram - 1)
    texts = texts.filter(enough)
    (nodes,) = columns(texts, "node")
    signature = minhash(
        daft.col("text"), num_hashes=bands * rows, ngram_size=plan.ngram, seed=level.seed
    )
    found = daft.from_arrow(texts.select(["text"])).select(signature.alias("s")).to_arrow()
    values = found["s"].combine_chunks().flatten().to_numpy().astype(np.uint64)
    # Random odd multipliers fold a band into 64 bits; a collision costs a comparison.
    draw = np.random.RandomState(level.seed)
    odd = draw.randint(0, 2**63, (bands, rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    band = (values.reshape(len(nodes), bands, rows) * odd).sum(2, dtype=np.uint64).reshape(-1)
    table = pa.table({"band": band, "node": np.repeat(nodes, bands)})
    part_of = (band >> np.uint64(32)) % np.uint64(plan.parts)
    save(plan.file(level.bands, part), table, part_of, plan.parts)


def save_long_bands(plan: Plan, part: int) -> dict[str, int]:
    """The second signature's bands, for the texts of a part that share buckets with many."""
    import numpy as np
    import pyarrow as pa

    texts = load([plan.file("distinct", part)])
    (crowded,) = columns(load(plan.files(FIRST.crowded), [part]), "node")
    (nodes,) = columns(texts, "node")
    at = np.searchsorted(nodes, np.unique(crowded))
    save_bands(load_daft(), plan, part, texts.take(pa.array(at)), SECOND)
    return said(texts=len(at))


def pair_bands(plan: Plan, part: int) -> dict[str, int]:
    """Pairs from the first signature."""
    return _pair(plan, part, FIRST)


def pair_long_bands(plan: Plan, part: int) -> dict[str, int]:
    """Pairs from the second signature."""
    return _pair(plan, part, SECOND)


def _pair(plan: Plan, part: int, level: Level) -> dict[str, int]:
    """Write the pairs of texts that share a band of a part: `u` > `v`, each once, cut by `u`."""
    import pyarrow as pa

    band, node = columns(load(plan.files(level.bands), [part]), "band", "node")
    u, v, crowded = buckets_to_pairs(band, node)
    u, v = once(u, v)
    table = pa.table({"u": u, "v": v})
    save(plan.file(level.pairs, part), table, u % plan.parts, plan.parts)
    if level.crowded:
        table = pa.table({"node": crowded})
        save(plan.file(level.crowded, part), table, crowded % plan.parts, plan.parts)
    return said(pairs=len(u), crowded=len(crowded))


def buckets_to_pairs(
    band: npt.NDArray[np.uint64], node: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Pairs `u` > `v` of nodes with the same band, and the nodes of buckets that were cut short."""
    import numpy as np

    order = np.argsort(band, kind="stable")
    band = band[order]
    same = np.zeros(len(band) + 1, bool)
    same[1:-1] = band[1:] == band[:-1]
    shared = same[1:] | same[:-1]
    band, node = band[shared], node[order[shared]]
    order = np.lexsort((node, band))
    band, node = band[order], node[order]
    is_start = np.append(True, band[1:] != band[:-1])[: len(band)]
    start = np.maximum.accumulate(np.where(is_start, np.arange(len(band)), 0))
    place = np.arange(len(band)) - start
    found = []
    at = np.arange(len(band))
    for step in range(1, MOST_PARTNERS + 1):
        at = at[place[at] >= step]
        found.append((node[at], node[at - step]))
    late = np.flatnonzero(place > MOST_PARTNERS)
    found.append((node[late], node[start[late]]))
    u, v = (np.concatenate(ends) for ends in zip(*found, strict=True))
    crowded = node[np.isin(start, start[late])]
    return u[u != v], v[u != v], np.unique(crowded)


def once(u: Numbers, v: Numbers) -> tuple[Numbers, Numbers]:
    """Pairs in order, each once."""
    import numpy as np

    order = np.lexsort((v, u))
    u, v = u[order], v[order]
    new = np.append(True, (u[1:] != u[:-1]) | (v[1:] != v[:-1]))[: len(u)]
    return u[new], v[new]
