"""How varied the kept records are: verbs and objects, lengths, nearness to the seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from selfinstruct.steps.charts.figures import NOUNS, lengths, similarity, top_verbs, verb_wheel
from selfinstruct.steps.charts.markup import folded, paragraph, table, text
from selfinstruct.steps.charts.numbers import count, figure, percent
from selfinstruct.steps.charts.page import Page
from selfinstruct.steps.charts.summary import FIELDS, Summary
from selfinstruct.steps.charts.theme import Theme

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def variety_section(page: Page, summary: Summary, threshold: float | None) -> str:
    """Charts of what the kept records are like, each with its numbers as a table."""
    if not summary.kept:
        return paragraph("Nothing was kept yet.")
    return (
        _verbs(page, summary)
        + _lengths(page, summary.lengths, summary.kept)
        + _nearest(page, summary.nearest, threshold)
    )


def _verbs(page: Page, summary: Summary) -> str:
    ranked = top_verbs(summary.verbs)
    head = "<h3>Root verbs and their objects</h3>"
    if not ranked:
        return head + paragraph("No verbs were recognised; this chart reads English only.", "note")
    named = sum(
        n for verb, nouns in summary.verbs.items() if verb for noun, n in nouns.items() if noun
    )
    shown = sum(number for _, _, nouns in ranked for _, number in nouns)
    label = "Most common root verbs: " + ", ".join(f"{verb} {number}" for verb, number, _ in ranked)
    rows = [
        (text(verb), count(number), percent(number, summary.kept),
         text(", ".join(f"{noun} ({count(n)})" for noun, n in nouns)))
        for verb, number, nouns in ranked
    ]  # fmt: skip
    return (
        head
        + page.chart(
            "verbs", label, "min(600px, 88vw)", lambda theme: verb_wheel(theme, summary.verbs)
        )
        + paragraph(
            f"The {len(ranked)} most common root verbs (inside) and up to {NOUNS} direct objects "
            f"of each (outside); the pairs shown are {percent(shown, summary.kept)} of the kept "
            f"records; {percent(named, summary.kept)} have a verb with an object. Found by rules, "
            "for English instructions.",
            "note",
        )
        + folded(
            "Verbs and objects as a table",
            table("Root verbs", ("Verb", "Records", "Share", "Objects"), rows, numbers=(1, 2)),
        )
    )


def _lengths(page: Page, found: Mapping[str, Mapping[int, int]], kept: int) -> str:
    charts, rows = [], []
    for field in FIELDS:
        words = found[field]
        total = sum(words.values())
        if not total:
            rows.append((text(field), "0", "-", "-", "-", "-"))
            continue
        mean = sum(n * number for n, number in words.items()) / total
        median, high, longest = _quantile(words, 0.5), _quantile(words, 0.99), max(words)
        rows.append(
            (text(field), count(total), figure(mean), count(median), count(high), count(longest))
        )
        share = "" if field != "input" else f" {percent(total, kept)} of the records have one."
        charts.append(
            f"<figure><h3>{text(field.capitalize())}</h3>"
            + page.chart(
                f"length-{field}",
                f"Words per {field}: median {median}, 99% have at most {high}",
                "auto",
                partial(_draw_lengths, words),
            )
            + f"<figcaption>Median {count(median)} {_words(median)}, 99% at most {count(high)}."
            f"{share}</figcaption></figure>"
        )
    return (
        '<h3>Lengths in words</h3><div class="grid3">'
        + "".join(charts)
        + "</div>"
        + folded(
            "Lengths as a table",
            table(
                "Words per field, of records that have it",
                ("Field", "Records", "Mean", "Median", "99th percentile", "Longest"),
                rows,
                numbers=range(1, 6),
            ),
        )
    )


def _words(number: int) -> str:
    return "word" if number == 1 else "words"


def _draw_lengths(words: Mapping[int, int], theme: Theme) -> Figure:
    return lengths(theme, words)


def _quantile(words: Mapping[int, int], share: float) -> int:
    total, seen = sum(words.values()), 0
    for length in sorted(words):
        seen += words[length]
        if seen >= share * total:
            return length
    return 0


def _nearest(page: Page, scores: Sequence[float], threshold: float | None) -> str:
    if not scores:
        return ""
    ordered = sorted(scores)
    median = ordered[len(ordered) // 2]
    far = percent(sum(score < 0.5 for score in scores), len(scores))
    tenths = Counter(min(9, int(score * 10 + 1e-9)) for score in scores)
    rows = [(f"{n / 10:.1f} to {(n + 1) / 10:.1f}", count(tenths[n])) for n in range(10)]
    label = (
        f"ROUGE-L F1 of {len(scores)} kept instructions with the nearest seed: median {median:.2f}"
    )
    return (
        "<h3>Nearness to the seeds</h3>"
        + page.chart("nearest", label, "auto", lambda theme: similarity(theme, scores, threshold))
        + paragraph(
            f"ROUGE-L F1 of each kept instruction with the human seed nearest to it, for "
            f"{count(len(scores))} records: median {median:.2f}, {far} below 0.5. Low values mean "
            "new wording; they say nothing about correctness.",
            "note",
        )
        + folded(
            "Nearness as a table",
            table("ROUGE-L F1 with the nearest seed", ("F1", "Records"), rows, numbers=(1,)),
        )
    )
