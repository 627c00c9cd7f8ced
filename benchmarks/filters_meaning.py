"""Jobs of `filters_drive.py` on meaning: paraphrases, approximate neighbours, root verbs."""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from harness import HERE
from texts import alpaca

from selfinstruct.core.recipe import SemanticConfig
from selfinstruct.core.types import Candidate
from selfinstruct.steps.embedding.minilm import MiniLM
from selfinstruct.steps.embedding.vectors import Vectors, cosine
from selfinstruct.steps.filters.semantic import Semantic
from selfinstruct.steps.roots import root_verb_object

Said = dict[str, object]
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def paraphrases(given: argparse.Namespace) -> Said:
    """Precision and recall on the labelled pairs, by threshold; the default's by themselves."""
    lines = (HERE / "data" / "paraphrases.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    embedder = MiniLM()
    ones, others = (embedder.embed([row[side] for row in rows]) for side in (1, 2))
    scores = [cosine(a, b) for a, b in zip(ones, others, strict=True)]
    labels = [row[0] == "1" for row in rows]
    found: Said = {"pairs": len(rows), "paraphrases": sum(labels)}
    default = SemanticConfig().threshold
    for threshold in THRESHOLDS:
        hits = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        precision, recall = sum(hits) / len(hits), sum(hits) / sum(labels)
        found[f"precision_{threshold:g}"], found[f"recall_{threshold:g}"] = precision, recall
        if threshold == default:
            found |= {"default": default, "precision": precision, "recall": recall}
    return found


def semantic(given: argparse.Namespace) -> Said:
    """The filter on Alpaca's rows, and its neighbours beside those of a full comparison."""
    texts = alpaca(given.count)
    items = [
        Candidate(
            id=str(at), slot=0, index=0, strategy="",
            instruction=row["instruction"], input=row["input"], output=row["output"],
        )
        for at, row in enumerate(texts.rows)
    ]  # fmt: skip
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
