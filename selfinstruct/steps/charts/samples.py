"""Records as they are: kept ones with their parents, rejected ones with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfinstruct.core.types import Record
from selfinstruct.steps.charts.markup import clean, folded, paragraph, passage, tag, text
from selfinstruct.steps.charts.numbers import count, dollars
from selfinstruct.steps.charts.summary import REASONS, REJECTED_SAMPLES, Summary

# Characters of one text at most, so that a page of long records stays a page.
LONGEST_OUTPUT = 12_000
LONGEST_TEXT = 4_000
LONGEST_REJECTED = 2_000
LONGEST_ANSWER = 3_000
ANSWERS = 12
SHOWN = 6  # kept samples that are not folded away


def kept_section(summary: Summary) -> str:
    """A sample of the kept records, each with the seeds, records and passage its prompt showed."""
    if not summary.samples:
        return paragraph("Nothing was kept yet.")
    cards = [_kept(record, summary) for record in summary.samples]
    more = _cards(cards[SHOWN:])
    intro = f"{count(len(summary.samples))} of {count(summary.kept)} kept records, drawn by chance."
    return (
        paragraph(intro, "note")
        + _cards(cards[:SHOWN])
        + (folded(f"{len(cards) - SHOWN} more", more) if more else "")
    )


def _cards(cards: Sequence[str]) -> str:
    return f'<div class="records two">{"".join(cards)}</div>' if cards else ""


def _kept(record: Record, summary: Summary) -> str:
    c = record.candidate
    marks = [tag(mark) for mark in (c.strategy, c.category) if mark]
    marks += [f"<span>{text(c.model)}</span>", f"<span>{dollars(c.cost)}</span>"]
    return (
        '<article class="record">'
        + _field("Instruction", c.instruction, LONGEST_TEXT, strong=True)
        + (_field("Input", c.input, LONGEST_TEXT) if c.input else "")
        + _field("Output", c.output, LONGEST_OUTPUT)
        + f'<div class="meta">{"".join(marks)}<code>{text(c.id)}</code></div>'
        + _parents(c.parents, summary)
        + "</article>"
    )


def _field(label: str, value: str, limit: int, *, strong: bool = False) -> str:
    made = passage(value, limit)
    if strong:
        made = made.replace('class="passage"', 'class="passage strong"', 1)
    return f'<span class="label">{text(label)}</span>{made}'


def _parents(parents: Sequence[str], summary: Summary) -> str:
    """The parents by id, with their instruction on hover and on opening."""
    if not parents:
        return '<div class="meta">no parents: its prompt showed no examples</div>'
    items = []
    for parent in parents:
        known = summary.texts.get(parent, "no longer in the run")
        kind = tag("record")
        if parent in summary.seed_ids or parent in summary.covered.ids:
            kind = tag("seed" if parent in summary.seed_ids else "passage", "accent")
        items.append(
            f'<li>{kind} <code title="{text(known)}">{text(parent)}</code> '
            f'<span dir="auto">{text(known)}</span></li>'
        )
    title = f"{len(parents)} parent{'s' if len(parents) > 1 else ''}"
    return folded(title, f"<ul>{''.join(items)}</ul>", kind="parents")


def rejected_section(summary: Summary, counts: Mapping[str, int]) -> str:
    """Samples of what was rejected, by reason, the most common reason first."""
    if not summary.rejects:
        return paragraph("Nothing was rejected.")
    ranked = sorted(summary.rejects, key=lambda reason: (-counts.get(reason, 0), reason))
    parts = []
    for n, reason in enumerate(ranked[:REASONS]):
        number = counts.get(reason, len(summary.rejects[reason]))
        cards = _cards([_rejected(record, summary) for record in summary.rejects[reason]])
        parts.append(
            f'<details class="reason"{" open" if n == 0 else ""}><summary>'
            f"{text(reason.replace('_', ' '))}<small>{count(number)}</small></summary>"
            f"{cards}</details>"
        )
    intro = f"Up to {REJECTED_SAMPLES} of each reason. All of them stay in the ledger and can be "
    return paragraph(intro + "judged again with other settings at no cost.", "note") + "".join(
        parts
    )


def _rejected(record: Record, summary: Summary) -> str:
    v = record.verdict
    near = ""
    if v.neighbour:
        kind = "seed" if v.neighbour in summary.seed_ids else "record"
        near = (
            f'<span class="label">Nearest {kind} <code>{text(v.neighbour)}</code></span>'
            + passage(summary.texts.get(v.neighbour, ""), LONGEST_REJECTED)
        )
    return fault_card(record, near)


def fault_card(record: Record, near: str = "") -> str:
    """A record and what its verdict says in `detail`; `near` is finished HTML under it."""
    c, v = record.candidate, record.verdict
    folded_fields = [
        _field(label, value, LONGEST_REJECTED)
        for label, value in (("Input", c.input), ("Output", c.output))
        if value
    ]
    why = [f"<bdi>{text(v.detail)}</bdi>"] if v.detail else []
    if v.score is not None:
        why.append(f"score {v.score:.3f}")
    return (
        '<article class="record">'
        + _field("Instruction", c.instruction, LONGEST_REJECTED, strong=True)
        + (folded("Input and output", *folded_fields) if folded_fields else "")
        + (f'<div class="why">{"; ".join(why)}</div>' if why else "")
        + near
        + "</article>"
    )


def side_by_side(samples: Sequence[Mapping[str, Any]]) -> str:
    """Held-out prompts with the reference and both answers."""
    cards = []
    for sample in samples[:ANSWERS]:
        columns = "".join(
            f'<div class="{kind}">'
            f"{_field(label, clean(sample.get(kind) or ''), LONGEST_ANSWER)}</div>"
            for kind, label in (
                ("reference", "Reference"),
                ("before", "Base"),
                ("after", "Student"),
            )
        )
        given = clean(sample.get("input") or "")
        cards.append(
            '<article class="record">'
            + _field(
                "Instruction", clean(sample.get("instruction", "")), LONGEST_ANSWER, strong=True
            )
            + (_field("Input", given, LONGEST_ANSWER) if given else "")
            + f'<div class="versus">{columns}</div></article>'
        )
    return f'<div class="records">{"".join(cards)}</div>'
