"""Jobs of `filters_drive.py` on selection: the ways to choose, on embeddings of Alpaca's rows.

Embedding takes far longer than choosing, so the vectors are made once, into build/, and used again.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from harness import HERE
from texts import alpaca

from selfinstruct.core.types import SeedTask, task_text
from selfinstruct.steps.embedding.minilm import MiniLM
from selfinstruct.steps.embedding.vectors import Vectors
from selfinstruct.steps.selection.choose import EMBEDDED
from selfinstruct.steps.selection.coverage import facility_location, k_center
from selfinstruct.steps.selection.groups import groups_of
from selfinstruct.steps.selection.methods import Choice, Quota, draw, first

Said = dict[str, object]
TAKEN = 9_000 / 52_002  # the share that AlpaGasus took


def embedding(given: argparse.Namespace) -> Said:
    """Embed `count` rows into build/, unless it was done before; what it cost when it was done."""
    path = HERE.parent / "build" / f"vectors-{given.count}.npz"
    if path.is_file():
        with np.load(path) as found:
            return {"rows": given.count, "embedding_ms_a_row": float(found["ms"])}
    texts = [task_text(task) for task in _tasks(given.count)]
    embedder = MiniLM()
    begin = time.process_time()
    parts = [embedder.embed(texts[at : at + EMBEDDED]) for at in range(0, len(texts), EMBEDDED)]
    took = 1000 * (time.process_time() - begin) / len(texts)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, rows=np.concatenate(parts), ms=took)
    return {"rows": given.count, "embedding_ms_a_row": took}


def k_centers(given: argparse.Namespace) -> Said:
    """The k-center choice, and how far the worst record is from one chosen."""
    return _choose(given, k_center)


def facilities(given: argparse.Namespace) -> Said:
    """The facility location choice."""
    return _choose(given, facility_location)


def spaced(given: argparse.Namespace) -> Said:
    """Down a random order with DEITA's least distance, which compares each with all taken."""

    def take(vectors: Vectors, count: int, quota: Quota) -> Choice:
        order = draw([str(at) for at in range(len(vectors))], 1)
        return first(order, count, quota, vectors, 0.1)

    return _choose(given, take)


def by_topic(given: argparse.Namespace) -> Said:
    """Sorting into 12 topics, and a random choice with a quota for each."""
    tasks = _tasks(given.count)
    begin = time.process_time()
    groups = groups_of(tasks, "topic")
    order = draw([task.id for task in tasks], 1)
    count = round(given.count * TAKEN)
    most = -(-count // len(set(groups)))
    choice = first(order, count, Quota(groups, most))
    taken = Counter(groups[at] for at in choice.chosen)
    return {
        "rows": len(tasks),
        "chosen": len(choice.chosen),
        "cpu_s": time.process_time() - begin,
        "topics": len(taken),
        "largest": max(taken.values()),
        "quota": most,
    }


def _choose(given: argparse.Namespace, take: Callable[[Vectors, int, Quota], Choice]) -> Said:
    """Choose, and say what it cost and how near the records are to the nearest one chosen."""
    with np.load(HERE.parent / "build" / f"vectors-{given.count}.npz") as found:
        vectors = Vectors(found["rows"])
    count = round(len(vectors) * TAKEN)
    begin = time.process_time()
    choice = take(vectors, count, Quota())
    cpu = time.process_time() - begin
    near = vectors.nearest(choice.chosen)
    return {
        "rows": len(vectors),
        "chosen": len(choice.chosen),
        "cpu_s": cpu,
        "mean_cosine": float(near.mean()),
        "lowest_cosine": float(near.min()),
    }


def _tasks(count: int) -> list[SeedTask]:
    return [
        SeedTask(id=str(at), instruction=r["instruction"], input=r["input"], output=r["output"])
        for at, r in enumerate(alpaca(count).rows)
    ]
