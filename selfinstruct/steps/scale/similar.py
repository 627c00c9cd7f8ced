"""Candidate pairs measured: the exact Jaccard similarity of the word n-grams of two texts.

The two texts of a pair lie in parts of their own. So a pair first goes to the part of `u`, which
sends it on, and the text with it, to the part of `v`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfinstruct.steps.scale.bands import FIRST, SECOND, once
from selfinstruct.steps.scale.parts import columns, load, save
from selfinstruct.steps.scale.plan import Plan, said
from selfinstruct.steps.scale.runner import load_daft

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

PAIRS = 100_000  # that are measured at a time
NUMBER_BITS = 62  # of an n-gram's number


def send_texts(plan: Plan, part: int) -> dict[str, int]:
    """The pairs whose `u` is in a part, each once, cut by `v`, and the texts needed there."""
    import numpy as np
    import pyarrow as pa

    table = load([*plan.files(FIRST.pairs), *plan.files(SECOND.pairs)], [part])
    u, v = once(*columns(table, "u", "v"))
    save(plan.file("met", part), pa.table({"u": u, "v": v}), v % plan.parts, plan.parts)
    node, target = once(u, v % plan.parts)
    daft = load_daft()
    sent = daft.from_arrow(pa.table({"node": node, "target": target}))
    texts = daft.from_arrow(load([plan.file("distinct", part)]))
    found = sent.join(texts, on="node").sort(["node", "target"]).to_arrow()
    save(plan.file("sent", part), found.select(["node", "text"]), *_by(found, plan))
    return said(pairs=len(u), texts=len(np.unique(u)))


def _by(table: Any, plan: Plan) -> tuple[Numbers, int]:
    return columns(table, "target")[0], plan.parts


def measure(plan: Plan, part: int) -> dict[str, int]:
    """The pairs whose `v` is in a part: those that reach the threshold, both ways, cut by `u`."""
    import numpy as np
    import pyarrow as pa

    u, v = columns(load(plan.files("met"), [part]), "u", "v")
    sent, own = load(plan.files("sent"), [part]), load([plan.file("distinct", part)])
    (nodes,) = columns(own, "node")
    used = np.unique(v)
    own = own.take(pa.array(np.searchsorted(nodes, used)))
    texts = pa.concat_tables([sent.select(["node", "text"]), own])
    (nodes,) = columns(texts, "node")
    order = np.argsort(nodes, kind="stable")
    grams = gram_matrix(texts["text"], plan.ngram)
    place = [order[np.searchsorted(nodes, ends, sorter=order)] for ends in (u, v)]
    near = jaccard(grams, *place) >= plan.threshold
    u, v = u[near], v[near]
    edges = pa.table({"u": np.append(u, v), "v": np.append(v, u)})
    save(plan.file("edges", part), edges, edges["u"].to_numpy() % plan.parts, plan.parts)
    return said(pairs=len(near), edges=len(u))


def gram_matrix(texts: Any, ngram: int) -> Any:
    """A row for each text, of at least `ngram` words, that has a 1 at each n-gram in it.

    N-grams are numbered without collisions: the numbers of their words follow each other in the
    bits of one number, and are numbered anew where they would not fit.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.sparse import csr_matrix

    words = pc.split_pattern(texts.combine_chunks(), " ")
    if isinstance(words, pa.ChunkedArray):
        words = words.combine_chunks()
    coded = words.flatten().dictionary_encode()
    ids = coded.indices.to_numpy().astype(np.int64)
    lengths = words.value_lengths().to_numpy()
    counts = lengths - ngram + 1
    starts = np.repeat(lengths.cumsum() - lengths - (counts.cumsum() - counts), counts)
    starts += np.arange(len(starts))
    width = bits = max(1, int(len(coded.dictionary) - 1).bit_length())
    found = ids[starts]
    for step in range(1, ngram):
        if bits + width > NUMBER_BITS:
            distinct, found = np.unique(found, return_inverse=True)
            bits = max(1, len(distinct).bit_length())
        found = (found << width) | ids[starts + step]
        bits += width
    ends = np.append(0, counts.cumsum())
    ones = np.ones(len(found), np.int8)
    matrix = csr_matrix((ones, found, ends), shape=(len(counts), 1 << NUMBER_BITS))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def jaccard(grams: Any, one: Numbers, other: Numbers) -> npt.NDArray[np.float64]:
    """The similarity of each pair of rows of a `gram_matrix`."""
    import numpy as np

    sizes = np.diff(grams.indptr)
    found = [np.empty(0)]
    for start in range(0, len(one), PAIRS):
        a, b = one[start : start + PAIRS], other[start : start + PAIRS]
        both = np.diff(grams[a].multiply(grams[b]).indptr)
        found.append(both / (sizes[a] + sizes[b] - both))
    return np.concatenate(found)
