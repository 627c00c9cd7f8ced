"""The report's part on how varied the kept records are: n-grams, neighbours, topics, seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from selfinstruct.steps.charts.markup import folded, paragraph, table, text
from selfinstruct.steps.charts.numbers import count, percent
from selfinstruct.steps.diversity.measures import NEAR, Coverage, Diversity
from selfinstruct.steps.diversity.topics import Topic

SHOWN = 12  # seeds that are named


def diversity_section(
    found: Diversity,
    topics: Sequence[Topic] | None,
    coverage: Coverage,
    instructions: Mapping[str, str],
) -> str:
    """Tables of the measures, each with what it means.

    Args:
        found: the measures.
        topics: the topics; None where what finds them is not installed.
        coverage: of the seeds.
        instructions: the text of each seed by id.
    """
    return (
        _distinct(found)
        + _neighbours(found.nearest)
        + _topics(topics, found.records)
        + _seeds(coverage, instructions)
    )


def _distinct(found: Diversity) -> str:
    rows = [(f"distinct-{n}", f"{share:.3f}") for n, share in found.distinct.items()]
    return (
        "<h3>Distinct words</h3>"
        + table("Different n-grams per n-gram of the instructions", ("Measure", "Share"), rows,
                numbers=(1,))
        + paragraph("It falls as a set grows, so compare sets of one size.", "note")
    )  # fmt: skip


def _neighbours(nearest: Sequence[float]) -> str:
    if not nearest:
        return ""
    tenths = Counter(min(9, int(score * 10 + 1e-9)) for score in nearest)
    rows = [
        (f"{n / 10:.1f} to {(n + 1) / 10:.1f}", count(tenths[n]), percent(tenths[n], len(nearest)))
        for n in range(10)
    ]
    median = nearest[len(nearest) // 2]
    return (
        "<h3>Nearness to each other</h3>"
        + paragraph(
            f"ROUGE-L F1 of an instruction with the nearest other one, over a sample of "
            f"{count(len(nearest))}: median {median:.2f}.",
            "note",
        )
        + folded(
            "Nearness as a table",
            table("ROUGE-L F1 with the nearest other record", ("F1", "Records", "Share"), rows,
                  numbers=(1, 2)),
        )
    )  # fmt: skip


def _topics(topics: Sequence[Topic] | None, records: int) -> str:
    head = "<h3>Topics</h3>"
    if topics is None:
        return head + paragraph("Finding topics needs the extra semantic.", "note")
    if not topics:
        return head + paragraph("Too few instructions, or none that share words.", "note")
    rows = [(text(t.name), count(t.count), percent(t.count, records)) for t in topics]
    return (
        head
        + table("Topics of the instructions", ("Topic", "Records", "Share"), rows, numbers=(1, 2))
        + paragraph(
            "Groups by k-means over reduced TF-IDF, named by the words that set each apart. Names "
            "are found, not chosen.",
            "note",
        )
    )


def _seeds(coverage: Coverage, instructions: Mapping[str, str]) -> str:
    if not coverage.seeds:
        return ""
    unreached = coverage.unreached
    said = (
        f"{percent(coverage.near, coverage.seeds)} of the {count(coverage.seeds)} seeds have a "
        f"kept record near them (ROUGE-L F1 of {NEAR:g} or more). "
        + (
            f"No kept record descends from {count(len(unreached))} of them."
            if unreached
            else "Each has a kept record that was written after it."
        )
    )
    listed = [(text(i), text(instructions.get(i, "")[:120])) for i in unreached[:SHOWN]]
    more = f" The first {SHOWN} are shown." if len(unreached) > SHOWN else ""
    named = table("Seeds without a descendant", ("Seed", "Instruction"), listed)
    return (
        "<h3>Coverage of the seeds</h3>"
        + paragraph(said + more)
        + (folded("Seeds never reached", named) if listed else "")
    )
