"""Child processes of `filters.py`: near-duplicates at scale, and what crowded buckets cost.

python benchmarks/filters_scale.py whole DATA OUT [--part-rows N]
python benchmarks/filters_scale.py crowded --count N
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfinstruct.stages.filter_scale import filter_at_scale
from selfinstruct.steps.scale import bands, parts, plan, runner, similar

MB = 2**20
THRESHOLD, NGRAM = 0.7, 3


def whole(data: Path, out: Path, part_rows: int | None) -> dict[str, object]:
    """The whole job; seconds of each stage, peak memory of all processes, room on the disk."""
    if part_rows:
        plan.PART_ROWS = part_rows
    began: list[tuple[str, float]] = []
    disk = 0.0

    def tell(line: str) -> None:
        nonlocal disk
        began.append((line.partition(":")[0], time.perf_counter()))
        work = out.with_name(f".{out.name}.work")
        disk = max(disk, sum(f.stat().st_size for f in work.rglob("*") if f.is_file()) / MB)

    with _peak_memory() as peak:
        funnel = filter_at_scale(data, out, tell=tell)
    began.append(("end", time.perf_counter()))
    stages: dict[str, float] = {}
    for (name, start), (_, end) in itertools.pairwise(began):
        name = "components" if "star" in name else name
        stages[name] = round(stages.get(name, 0) + end - start, 2)
    return {
        "rows": funnel.read,
        "kept": funnel.kept,
        "peak_mb": round(peak[0]),
        "work_folder_mb": round(disk),
        "stage_wall_s": stages,
    }


@contextmanager
def _peak_memory() -> Iterator[list[float]]:
    """The most memory that this process and its children had at a time, in MB; Linux only.

    Proportional set sizes, once a second: pages that processes share count once. To look takes some
    20 ms of CPU, which is part of what is measured.
    """
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            peak[0] = max(peak[0], sum(map(_memory, _family())))

    thread = threading.Thread(target=watch)
    thread.start()
    yield peak
    stop.set()
    thread.join()


def _family() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return ["self", *(pid for one in tasks for pid in one.read_text().split())]


def _memory(pid: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def crowded(count: int, shared: float) -> dict[str, object]:
    """Texts that share a part of their words: what is found of the near pairs, without and with
    the second signature.

    Half of the texts are near copies of others, so that every pair that is missed could matter.
    """
    texts = _of_a_template(count, shared)
    wanted = _near_pairs(texts)
    row: dict[str, object] = {"texts": len(texts), "shared_words": shared, "pairs": len(wanted)}
    for name, second in (("first", False), ("both", True)):
        found = _found_pairs(texts, second)
        labels = _components(len(texts), found)
        together = sum(labels[u] == labels[v] for u, v in wanted)
        row[f"{name}_pairs_found"] = len(found & wanted) / len(wanted)
        row[f"{name}_in_one_component"] = together / len(wanted)
    return row


def _of_a_template(count: int, shared: float, words: int = 60) -> list[str]:
    rng = random.Random(1)
    fixed = [f"t{at}" for at in range(int(words * shared))]
    texts: dict[str, None] = {}
    found: list[str] = []
    while len(found) < count:
        if found and rng.random() < 0.5:
            text = rng.choice(found).split()
            for _ in range(rng.randint(1, 3)):
                text[rng.randrange(len(fixed), words)] = f"x{rng.randrange(10**6)}"
        else:
            text = fixed + [f"y{rng.randrange(10**6)}" for _ in range(words - len(fixed))]
        whole = " ".join(text)
        if whole not in texts:
            texts[whole] = None
            found.append(whole)
    return found


def _near_pairs(texts: list[str], rows: int = 500) -> set[tuple[int, int]]:
    """All pairs at the threshold, by comparing all."""
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import csr_matrix

    grams = similar.gram_matrix(pa.chunked_array([pa.array(texts, pa.large_string())]), NGRAM)
    names, columns = np.unique(grams.indices, return_inverse=True)
    shape = (len(texts), len(names))
    grams = csr_matrix((grams.data.astype(np.int32), columns, grams.indptr), shape=shape)
    sizes = np.diff(grams.indptr)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(texts), rows):
        both = (grams[start : start + rows] @ grams.T).toarray()
        score = both / (sizes[start : start + rows, None] + sizes[None] - both)
        u, v = np.nonzero(score >= THRESHOLD)
        u += start
        found.update(zip(u[u > v].tolist(), v[u > v].tolist(), strict=True))
    return found


def _found_pairs(texts: list[str], second: bool) -> set[tuple[int, int]]:
    """The pairs that the stages find."""
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        job = plan.Plan(work, 1, (), (), THRESHOLD, NGRAM, None, work)
        table = pa.table(
            {"node": range(len(texts)), "text": pa.array(texts, pa.large_string())},
        )
        parts.save(job.file("distinct", 0), table, None, 1)
        bands.save_bands(runner.load_daft(), job, 0, table)
        bands.pair_bands(job, 0)
        if second:
            bands.save_long_bands(job, 0)
            bands.pair_long_bands(job, 0)
        similar.send_texts(job, 0)
        similar.measure(job, 0)
        u, v = parts.columns(parts.load([job.file("edges", 0)]), "u", "v")
    return set(zip(u[u > v].tolist(), v[u > v].tolist(), strict=True))


def _components(count: int, pairs: set[tuple[int, int]]) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array(sorted(pairs)).reshape(-1, 2)
    graph = csr_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def main() -> None:
    """Do what the command line says and print the result."""
    parser = argparse.ArgumentParser()
    jobs = parser.add_subparsers(dest="job", required=True)
    one = jobs.add_parser("whole")
    one.add_argument("data", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--part-rows", type=int)
    other = jobs.add_parser("crowded")
    other.add_argument("--count", type=int, required=True)
    other.add_argument("--shared", type=float, default=0.75)
    given = parser.parse_args()
    if given.job == "whole":
        said = whole(given.data, given.out, given.part_rows)
    else:
        said = crowded(given.count, given.shared)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
