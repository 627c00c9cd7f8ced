"""What CI checks of the quickstart's result: enough records, no copies, a student that learned."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq


def main(folder: Path) -> None:
    """Exit with 1 and say which expectation does not hold."""
    rows = [
        row
        for split in ("train", "test")
        for file in sorted((folder / "dataset" / "data").glob(f"{split}-*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    lines = Path("seeds/general.jsonl").read_text("utf-8").splitlines()
    seeds = {json.loads(line)["instruction"] for line in lines}
    evaluation = json.loads((folder / "evaluation" / "evaluation.json").read_text("utf-8"))
    before, after = evaluation["before"]["loss"], evaluation["after"]["loss"]
    expectations = {
        f"at least 60 records kept ({len(rows)})": len(rows) >= 60,
        "no record copies a seed": not any(row["instruction"] in seeds for row in rows),
        f"held-out loss falls ({before:.3f} -> {after:.3f})": after < before,
        "a report": (folder / "report.html").stat().st_size > 10_000,
    }
    for name, holds in expectations.items():
        print(("ok      " if holds else "FAILED  ") + name)
    sys.exit(0 if all(expectations.values()) else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
