"""Child processes of `filters.py`: each measures one thing and prints what it cost as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import filters_grounded
import filters_junk
import filters_made
import filters_meaning
import filters_pools
import filters_select
import filters_weak

Said = dict[str, object]


JOBS: dict[str, Callable[[argparse.Namespace], Said]] = {
    "novelty": filters_pools.novelty,
    "alpaca": filters_pools.alpacas_own,
    "online": filters_pools.online,
    "equal": filters_pools.equal,
    "near": filters_pools.near,
    "paraphrases": filters_meaning.paraphrases,
    "semantic": filters_meaning.semantic,
    "roots": filters_meaning.roots,
    "embedding": filters_select.embedding,
    "k_center": filters_select.k_centers,
    "facility_location": filters_select.facilities,
    "spaced": filters_select.spaced,
    "topics": filters_select.by_topic,
    "made_faults": filters_made.made,
    "make": filters_junk.make,
    "weak": filters_weak.weak,
    "grounded": filters_grounded.grounded,
    "reading": filters_junk.reading,
}


def main() -> None:
    """Do what the command line says and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--folder", help="where files are written, for junk")
    parser.add_argument("--kind", help="which file, for junk")
    given = parser.parse_args()
    print(json.dumps(JOBS[given.job](given)))


if __name__ == "__main__":
    main()
