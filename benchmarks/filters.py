"""What the filters cost and find: exact novelty beside Alpaca's own code, and near-duplicates.

    python benchmarks/filters.py [--quick] [--check] [--parts novelty,...]

Each figure is taken in a fresh process. CPU time is user and system time of all threads. Texts are
Stanford Alpaca's 52,002 rows where they can be found (see `texts.py`), and made-up ones elsewhere;
the figures say which. ``--quick`` takes fewer rows and writes nothing. A part that is measured
again replaces its own figures in results/filters.json and leaves the others as they are.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import HERE, Findings, Finished, Part, run, run_parts, table

RESULTS = HERE / "results" / "filters.json"
# Ways to choose and their targets in seconds of CPU, for 9,000 of 52,002.
SELECT_JOBS = {"k_center": 60.0, "facility_location": 120.0, "spaced": 60.0, "topics": 30.0}
# Rows of the files of junk, and the megabytes that filtering them may take.
JUNK = {"identical": (1_000_000, 300.0), "novel": (500_000, 2048.0), "long": (3, 1024.0)}
PACKAGES = ("selfinstruct", "numba", "numpy", "rapidfuzz", "datasketch", "rouge-score", "daft")


def drive(job: str, count: int, *options: str) -> Finished:
    """One run of `filters_drive.py`."""
    return run([sys.executable, HERE / "filters_drive.py", job, "--count", str(count), *options])


def novelty(found: Findings, quick: bool) -> None:
    """Alpaca's instructions from text to decisions, beside Alpaca's own code on a slice of them."""
    done = drive("novelty", 5_000 if quick else 52_002)
    own = drive("alpaca", 20 if quick else 200).said
    row: dict[str, Any] = {
        **done.said,
        "peak_rss_mb": done.rss_mb,
        "times_faster": own["whole_cpu_s"] / done.said["cpu_s"],
    }
    table("Novelty of Alpaca's instructions", [row])
    table("Alpaca's own check, one process, without its process pool", [own])
    if not quick:
        found.target("novelty: CPU from text to decisions", row["cpu_s"], 2.0, "s")
        found.target("novelty: peak memory", done.rss_mb, 600, "MB")
        faster = float(row["times_faster"])
        found.target("novelty: next to Alpaca's own code", faster, 10_000, "times", at_least=True)
    if row["real"]:
        found.target("novelty: published rows dropped", row["dropped"], 0, "rows")
    found.note(**row, alpacas_own=own)


def online(found: Findings, quick: bool) -> None:
    """One candidate after the other, checked and added."""
    bounds = {5_000: 100} if quick else {50_000: 100, 500_000: 250}
    rows = [drive("online", pool).said for pool in bounds]
    table("Novelty of one candidate at a time", rows)
    for row, (pool, bound) in zip(rows, bounds.items(), strict=True):
        found.target(f"online: mean at {pool}", row["mean_us"], bound, "us")
        found.target(f"online: longest at {pool}", row["longest_ms"], 50, "ms")
    found.note(pools=rows)


def large(found: Findings, quick: bool) -> None:
    """Half a million texts: Alpaca's sentences and perturbed copies of them."""
    count = 60_000 if quick else 500_000
    done = drive("novelty", count)
    row: dict[str, Any] = {**done.said, "peak_rss_mb": done.rss_mb}
    table(f"Novelty of {count} sentences", [row])
    found.target("large: CPU from text to decisions", row["cpu_s"], 60, "s")
    found.target("large: peak memory", done.rss_mb, 2048, "MB")
    found.note(**row)


def equal(found: Findings, quick: bool) -> None:
    """Decisions, neighbours and scores beside rouge_score's, in two orders."""
    row = drive("equal", 2_000 if quick else 20_000).said
    table("Beside rouge_score", [row])
    found.target("equal: decisions that differ from rouge_score's", row["differing"], 0, "rows")
    found.note(**row)


def near(found: Findings, quick: bool) -> None:
    """Near-duplicates among perturbed rows, beside counting all shared n-grams."""
    done = drive("near", 6_000 if quick else 50_000)
    row = done.said
    table("Near-duplicates", [row])
    if not quick:
        found.target("near: CPU from text to decisions", row["cpu_s"], 3.0, "s")
    found.target("near: recall at 0.7", row["recall"], 0.99, "", at_least=True)
    found.target("near: precision at 0.7", row["precision"], 1.0, "", at_least=True)
    found.note(**row)


def grounded(found: Findings, quick: bool) -> None:
    """Answers by people next to the text that they are about, and next to another."""
    row = drive("grounded", 0).said
    if not row["rows"]:
        print("grounded: Dolly's records are not here, so nothing was measured")
        return
    table("Answers next to their own passage and to another's", row["by_precision"])
    table("At the defaults", [{name: row[name] for name in row if name != "by_precision"}])
    kept, other = float(row["kept_next_to_own"]), float(row["kept_next_to_another"])
    found.target("grounded: kept next to their own text", kept, 0.92, "", at_least=True)
    found.target("grounded: kept next to another's text", other, 0.03, "")
    found.note(**row)


def semantic(found: Findings, quick: bool) -> None:
    """Semantic duplicates: labelled paraphrases, and the graph's neighbours on Alpaca's rows."""
    said = drive("paraphrases", 0).said
    table("Semantic duplicates on labelled pairs", said["rows"])
    done = drive("semantic", 500 if quick else 4_000)
    row: dict[str, Any] = {**done.said, "peak_rss_mb": done.rss_mb}
    table("Semantic duplicates in Alpaca's rows", [row])
    recall = float(row["recall_of_full_comparison"])
    found.target("semantic: found of what a full comparison finds", recall, 0.99, "", at_least=True)
    found.note(paraphrases=said, **row)


def roots(found: Findings, quick: bool) -> None:
    """Root verb and object on labelled instructions of Alpaca's."""
    row = drive("roots", 0).said
    table("Root verb and object, share right", [row])
    found.note(**row)


def made(found: Findings, quick: bool) -> None:
    """Rules with few finds in Alpaca's rows on faults that were made, and on harmless changes."""
    said = drive("made_faults", 30 if quick else 200).said
    table("Faults made by a program, and harmless changes like them", said["rules"])
    found.note(**said)


def weak(found: Findings, quick: bool) -> None:
    """Every rule on the answers of a very small model, which are made once, into build/."""
    said = drive("weak", 20 if quick else 400).said
    table(f"Faults in {said['rows']} answers of SmolLM2-135M-Instruct", said["rules"])
    print(f"  {said['cut_by_the_limit']} were cut by the limit; what was found: build/weak.txt")
    found.note(**said)


def select(found: Findings, quick: bool) -> None:
    """Every way to choose that looks at embeddings or topics, on all of Alpaca's rows."""
    count = 2_000 if quick else 52_002
    embedded = drive("embedding", count).said
    rows = []
    for job, bound in SELECT_JOBS.items():
        done = drive(job, count)
        rows.append({"method": job, **done.said, "peak_rss_mb": done.rss_mb})
        if not quick:
            found.target(f"select: CPU of {job}", float(done.said["cpu_s"]), bound, "s")
        found.target(f"select: peak memory of {job}", done.rss_mb, 2048, "MB")
        table(f"Selection, embedding apart: {job}", rows[-1:])
    print(f"  embedding took {embedded['embedding_ms_a_row']:.3g} ms of CPU a row")
    found.note(embedding=embedded, methods=rows)


def faults(found: Findings, quick: bool) -> None:
    """Every rule and correctness check over Alpaca's rows; examples go to build/faults.html."""
    count = 5_000 if quick else 52_002
    page = HERE.parent / "build" / "faults.html"
    done = run([sys.executable, HERE / "filters_faults.py", "--count", str(count), "--page", page])
    rows: list[dict[str, Any]] = done.said["rules"]
    table("Faults in Alpaca's rows", rows)
    for name, counts in done.said["by_people"].items():
        print(f"by people, {name}: {counts}")
    print(f"{done.said['with_a_fault']} of {done.said['rows']} rows show one; examples: {page}")
    if not quick:
        found.target("faults: CPU of all rules", done.said["cpu_s"], 30.0, "s")
    found.note(**done.said)


def junk(found: Findings, quick: bool) -> None:
    """The command `filter` with its defaults on a million identical rows and other large files."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (count, bound) in JUNK.items():
            size = min(count, 20_000) if quick else count
            made = drive("make", size, "--folder", folder, "--kind", kind).said
            data, out = Path(folder, f"{kind}.jsonl"), Path(folder, "kept.jsonl")
            command = [sys.executable, "-m", "selfinstruct", "filter", data, "-o", out]
            done = run([*command, "--force", "--json"], limit_s=3600)
            funnel = done.said["funnel"]
            rows.append(
                {
                    "file": kind,
                    **made,
                    "kept": funnel["kept"],
                    "accounted": funnel["kept"] + sum(funnel["rejected"].values()),
                    "cpu_s": done.cpu_s,
                    "us_a_row": 1e6 * done.cpu_s / size,
                    "peak_rss_mb": done.rss_mb,
                }
            )
            data.unlink()
            lost = size - rows[-1]["accounted"]
            found.target(f"junk: rows lost of {kind}", lost, 0, "rows")
            if not quick:
                found.target(f"junk: peak memory of {kind}", done.rss_mb, bound, "MB")
        read = drive("reading", 5_000 if quick else 52_002, "--folder", folder).said
    table("`selfinstruct filter` on junk and on many rows", rows)
    table("Reading a JSON list", [read])
    found.note(files=rows, reading=read)


def scale(found: Findings, quick: bool) -> None:
    """`filter --engine daft` on a million rows, and on texts that share most of their words."""
    rows = [_scaled(count) for count in ((20_000,) if quick else (200_000, 1_000_000))]
    table("Near-duplicates at scale", [_flat(row) for row in rows])
    both = [
        run([sys.executable, HERE / "filters_scale.py", "crowded", "--count", count]).said
        for count in (("1000",) if quick else ("2000", "8000"))
    ]
    table("Texts that share three quarters of their words: shares of near pairs", both)
    together = min(float(one["both_in_one_component"]) for one in both)
    found.target("scale: crowded pairs in one component", together, 0.999, "", at_least=True)
    if not quick:
        found.target("scale: wall time of 1,000,000 rows", rows[1]["wall_s"], 60, "s")
        found.target("scale: peak memory of 1,000,000 rows", rows[1]["peak_mb"], 2048, "MB")
    found.note(rows=rows, crowded=both)


def scale_far(found: Findings, quick: bool) -> None:
    """The same on five million rows, and what 100 million would take by extrapolation.

    Time and room on the disk follow the line through the two measurements; memory is that of a
    million rows in parts of the size that 100 million would have.
    """
    small, big = (10_000, 20_000) if quick else (1_000_000, 5_000_000)
    rows = [_scaled(small), _scaled(big)]
    table("Near-duplicates at scale", [_flat(row) for row in rows])
    far: dict[str, Any] = {"rows": 100_000_000}
    large = _scaled(small, part_rows=far["rows"] // 256)
    table("In parts as large as 100 million rows would have", [_flat(large)])
    far["process_mb"] = large["process_mb"]
    for name in ("cpu_s", "work_folder_mb"):
        slope = (rows[1][name] - rows[0][name]) / (big - small)
        far[name] = rows[1][name] + slope * (far["rows"] - big)
    table("Extrapolated", [far])
    found.note(rows=rows, large_parts=large, extrapolated=far)


def _scaled(count: int, part_rows: int | None = None) -> dict[str, Any]:
    """What `count` rows cost: all processes together, and the largest of them."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.parquet")
        run([sys.executable, HERE / "filters_rows.py", data, "--count", str(count)])
        size = [] if part_rows is None else ["--part-rows", str(part_rows)]
        child = [sys.executable, HERE / "filters_scale.py", "whole", data, Path(folder, "kept")]
        done = run([*child, *size], limit_s=7200)
    cost = {"cpu_s": done.cpu_s, "wall_s": done.wall_s, "process_mb": done.rss_mb}
    return {**done.said, **cost}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "stage_wall_s"}


PARTS: dict[str, Part] = {
    "novelty": novelty,
    "online": online,
    "large": large,
    "equal": equal,
    "near": near,
    "grounded": grounded,
    "semantic": semantic,
    "roots": roots,
    "made": made,
    "weak": weak,
    "select": select,
    "junk": junk,
    "faults": faults,
    "scale": scale,
    "scale_far": scale_far,
}


if __name__ == "__main__":
    sys.exit(run_parts(__doc__, PARTS, RESULTS, PACKAGES, quick="fewer rows, nothing is written"))
