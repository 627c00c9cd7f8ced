"""Jobs of `filters_drive.py` on meaning: paraphrases, approximate neighbours, root verbs."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from harness import HERE
from texts import alpaca

from selfinstruct.core.sections.filters import SemanticConfig
from selfinstruct.core.types import Candidate
from selfinstruct.steps.embedding.minilm import MiniLM
from selfinstruct.steps.embedding.vectors import Vectors, cosine
from selfinstruct.steps.filters.semantic import Semantic
from selfinstruct.steps.roots import root_verb_object

Said = dict[str, object]
THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def paraphrases(given: argparse.Namespace) -> Said:
    """Precision and recall by threshold: on pairs that were made up, and on Alpaca's own rows.

    The default was chosen on the calibration pairs of Alpaca's rows; the others are held out.
    """
    embedder = MiniLM()
    rows = [
        {"pairs": name, **figures}
        for name, labelled in (*_made_up(), *_of_alpaca())
        for figures in _by_threshold(embedder, labelled)
    ]
    return {"default": SemanticConfig().threshold, "rows": rows}


class Labelled(NamedTuple):
    """Two texts, whether they ask for the same, and how many pairs they stand for."""

    one: str
    other: str
    same: bool
    weight: float = 1.0


def _made_up() -> Iterator[tuple[str, list[Labelled]]]:
    """Paraphrases, and pairs that share most words and ask for something else."""
    for name in ("paraphrases", "paraphrases_held_out"):
        lines = (HERE / "data" / f"{name}.tsv").read_text("utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        yield name, [Labelled(one, other, label == "1") for label, one, other in rows]


def _of_alpaca() -> Iterator[tuple[str, list[Labelled]]]:
    """Rows and their nearest neighbours, drawn from every band of cosines; none without the data.

    Each stands for so many of the 6,000 rows that were drawn; so precision is that on real rows,
    and recall is of all labelled pairs, those at lower cosines included.
    """
    texts = alpaca()
    if not texts.real:
        return
    compared = [
        f"{r['instruction']}\n{r['input']}" if r["input"] else r["instruction"] for r in texts.rows
    ]
    lines = (HERE / "data" / "alpaca_pairs.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    for name in ("calibration", "held_out"):
        yield (
            f"alpaca_{name}",
            [
                Labelled(compared[int(one)], compared[int(other)], label == "1", float(weight))
                for split, label, one, other, weight in rows
                if split == name
            ],
        )


def _by_threshold(embedder: MiniLM, pairs: list[Labelled]) -> Iterator[dict[str, float]]:
    ones = embedder.embed([pair.one for pair in pairs])
    others = embedder.embed([pair.other for pair in pairs])
    scores = [cosine(a, b) for a, b in zip(ones, others, strict=True)]
    same = sum(pair.weight for pair in pairs if pair.same)
    for threshold in THRESHOLDS:
        hits = [pair for pair, score in zip(pairs, scores, strict=True) if score >= threshold]
        right = sum(pair.weight for pair in hits if pair.same)
        yield {
            "threshold": threshold,
            "found": len(hits),
            "precision": right / sum(pair.weight for pair in hits) if hits else 1.0,
            "recall": right / same,
        }


def semantic(given: argparse.Namespace) -> Said:
    """The filter on Alpaca's rows, and its neighbours beside those of a full comparison."""
    texts = alpaca(given.count)
    items = [
        Candidate.plain(str(at), row["instruction"], row["input"], row["output"])
        for at, row in enumerate(texts.rows)
    ]
    compared = [f"{i.instruction}\n{i.input}" if i.input else i.instruction for i in items]
    begin = time.process_time()
    vectors = MiniLM().embed(compared)
    embedding = time.process_time() - begin
    filter_ = Semantic()
    kept: list[int] = []
    found: dict[int, float] = {}
    begin = time.process_time()
    for at, item in enumerate(items):
        verdict = filter_.check(item)
        if verdict is None:
            filter_.add(item)
            kept.append(at)
        else:
            found[at] = verdict.score or 0.0
    filtering = time.process_time() - begin
    # Every row beside all that were kept before it: what a full comparison would reject.
    whole = Vectors(vectors)
    was_kept, rejected, missed = np.zeros(len(items), bool), 0, 0
    threshold = SemanticConfig().threshold
    for at in range(len(items)):
        near = whole.similarities(at)[:at][was_kept[:at]]
        if near.size and near.max() >= threshold:
            rejected += 1
            missed += at not in found
        was_kept[at] = at not in found
    return {
        "rows": len(items),
        "real": texts.real,
        "rejected": len(found),
        "recall_of_full_comparison": 1 - missed / rejected if rejected else 1.0,
        "median_score": statistics.median(found.values()) if found else None,
        "embedding_ms_a_row": 1000 * embedding / len(items),
        "filter_ms_a_row": 1000 * filtering / len(items),
    }


def roots(given: argparse.Namespace) -> Said:
    """Accuracy of root verb and object on the labelled instructions."""
    texts = alpaca()
    if not texts.real:
        return {"labelled": 0, "real": False}
    verbs = objects = both = 0
    lines = (HERE / "data" / "roots.tsv").read_text("utf-8").splitlines()
    for line in lines:
        number, *labels = line.split("\t")
        expected = tuple(None if label == "-" else label for label in labels)
        said = root_verb_object(texts.rows[int(number)]["instruction"])
        verbs += said[0] == expected[0]
        objects += said[1] == expected[1]
        both += said == expected
    size = len(lines)
    return {
        "labelled": size,
        "real": True,
        "verb": verbs / size,
        "object": objects / size,
        "both": both / size,
    }
