"""The training's plan beside what came of it, and what was measured on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfinstruct.steps.charts.figures import curve
from selfinstruct.steps.charts.markup import facts, folded, passage, table, text
from selfinstruct.steps.charts.numbers import count, dollars, duration, figure
from selfinstruct.steps.charts.page import Page

GIB = 1 << 30
ANSWER_LIMIT = 4_000
ANSWERS_SHOWN = 12
UNKNOWN = "not known"


def plan_table(training: Mapping[str, Any]) -> str:
    """What was planned, foreseen after the first steps, and taken; nothing for an older summary."""
    plan, actual = training.get("plan"), training.get("actual")
    if not plan or not actual:
        return ""
    rows = [
        ("Memory of a process", _gib(plan.get("need")), "", _gib(actual.get("peak_bytes"))),
        (
            "Time",
            _time(plan.get("seconds")),
            _time(actual.get("corrected_seconds")),
            _time(actual.get("seconds")),
        ),
        ("Steps", count(plan["steps"]), "", count(training.get("steps", 0))),
        ("Tokens", count(plan["tokens"]), "", count(training.get("tokens", 0))),
        (
            "Examples per forward pass",
            count(plan["micro_batch_size"]),
            "",
            count(actual.get("micro_batch_size", 0)),
        ),
        ("Cost", _dollars(plan.get("cost")), "", _dollars(actual.get("cost"))),
        ("Power", _kwh(plan.get("kwh")), "", _kwh(actual.get("kwh"))),
    ]
    head = ("", "Planned", "After 20 steps", "Taken")
    made = table("The plan and what came of it", head, rows, numbers=range(1, 4))
    return f"<h3>Plan and reality</h3>{made}"


def measured_part(page: Page, training: Mapping[str, Any]) -> str:
    """The held-out loss during training, and the answers given on the way."""
    measured: Sequence[Mapping[str, Any]] = training.get("held_out") or []
    if not measured:
        return ""
    steps = [float(one["step"]) for one in measured]
    losses = [float(one["loss"]) for one in measured]
    drawn = ""
    if len(measured) > 1:
        label = f"Held-out loss from {figure(losses[0])} to {figure(losses[-1])}"
        chart = page.chart(
            "curve-held-out",
            label,
            "auto",
            lambda theme: curve(theme, steps, losses, smoothed=False),
        )
        drawn = f"<figure><h3>{text('Held-out loss while it was trained')}</h3>{chart}</figure>"
    best = training.get("best_step")
    head = ("Step", "Held-out loss", "")
    rows = [
        (count(one["step"]), figure(one["loss"]), "kept" if one["step"] == best else "")
        for one in measured
    ]
    made = table("Measurements during training", head, rows, numbers=range(2))
    return drawn + folded("Measurements as a table", made) + _answers(measured)


def _answers(measured: Sequence[Mapping[str, Any]]) -> str:
    """Each sample prompt with its answers over the steps."""
    prompts = measured[-1].get("samples") or []
    shown = spread(measured, ANSWERS_SHOWN)
    cards = []
    for at, sample in enumerate(prompts):
        rows = [("Reference", passage(str(sample["reference"]), ANSWER_LIMIT))]
        rows += [
            (f"Step {one['step']:,}", passage(str(one["samples"][at]["answer"]), ANSWER_LIMIT))
            for one in shown
            if at < len(one.get("samples") or [])
        ]
        prompt = passage(str(sample["prompt"]), ANSWER_LIMIT)
        cards.append(f'<article class="record">{prompt}{facts(rows)}</article>')
    if not cards:
        return ""
    return folded("Answers while it was trained", f'<div class="records">{"".join(cards)}</div>')


def spread(items: Sequence[Mapping[str, Any]], wanted: int) -> list[Mapping[str, Any]]:
    """At most `wanted` of the items, evenly, the first and the last among them."""
    if len(items) <= wanted:
        return list(items)
    places = {round(n * (len(items) - 1) / (wanted - 1)) for n in range(wanted)}
    return [items[place] for place in sorted(places)]


def _gib(size: Any) -> str:
    return f"{size / GIB:.2f} GiB" if isinstance(size, int) else UNKNOWN


def _time(seconds: Any) -> str:
    return duration(float(seconds)) if isinstance(seconds, int | float) else UNKNOWN


def _dollars(pico: Any) -> str:
    return dollars(pico) if isinstance(pico, int) else UNKNOWN


def _kwh(value: Any) -> str:
    return f"{value:.3g} kWh" if isinstance(value, int | float) else UNKNOWN
