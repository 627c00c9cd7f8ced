"""The student's part of the report: its training, and what it learned."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from selfinstruct.steps.charts.figures import before_after, curve
from selfinstruct.steps.charts.foreseen import measured_part, plan_table
from selfinstruct.steps.charts.markup import facts, folded, paragraph, table, text
from selfinstruct.steps.charts.numbers import count, duration, figure, percent
from selfinstruct.steps.charts.page import Page
from selfinstruct.steps.charts.samples import side_by_side
from selfinstruct.steps.charts.theme import Theme

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CURVES = (
    ("loss", "Training loss"),
    ("learning_rate", "Learning rate"),
    ("grad_norm", "Gradient norm"),
)
ROWS = 11  # of the training curve's table
METRICS = (
    ("loss", "Loss", "mean negative log-likelihood of the reference, per token; lower is better"),
    ("perplexity", "Perplexity", "the exponential of the loss; lower is better"),
    ("rouge_l", "ROUGE-L", "overlap of words with the reference; higher is better"),
)


def training_section(page: Page, training: Mapping[str, Any]) -> str:
    """The training curve and what was trained on what."""
    charts = [_curve(page, training.get("losses") or [], key, name) for key, name in CURVES]
    form = training.get("prompt")
    first = charts[0] or paragraph("No loss was logged.", "note")
    return (
        first
        + f'<div class="grid3">{"".join(charts[1:])}</div>'
        + _curve_table(training.get("losses") or [])
        + facts((name, text(value)) for name, value in _facts(training) if value)
        + plan_table(training)
        + measured_part(page, training)
        + _notes(training)
        + (folded("The form it was trained on", f"<pre>{text(form)}</pre>") if form else "")
    )


def _curve(page: Page, losses: list[Mapping[str, Any]], key: str, name: str) -> str:
    rows = [row for row in losses if isinstance(row.get(key), int | float)]
    if len(rows) < 2:
        return ""
    steps, values = [float(row["step"]) for row in rows], [float(row[key]) for row in rows]
    label = f"{name} from {figure(values[0])} to {figure(values[-1])} over {len(rows)} entries"
    smoothed = key != "learning_rate"
    drawn = page.chart(
        f"curve-{key}", label, "auto", lambda theme: curve(theme, steps, values, smoothed=smoothed)
    )
    return f"<figure><h3>{text(name)}</h3>{drawn}</figure>"


def _curve_table(losses: list[Mapping[str, Any]]) -> str:
    """Some of the logged entries, evenly spread, for those who cannot see the curve."""
    if len(losses) < 2:
        return ""
    chosen = sorted({round(n * (len(losses) - 1) / (ROWS - 1)) for n in range(ROWS)})
    rows = [
        (count(losses[n].get("step", 0)), *(_cell(losses[n].get(key)) for key, _ in CURVES))
        for n in chosen
    ]
    head = ("Step", *(name for _, name in CURVES))
    made = table(f"{len(chosen)} of {len(losses)} logged steps", head, rows, numbers=range(1, 4))
    return folded("The curve as a table", made)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _facts(t: Mapping[str, Any]) -> list[tuple[str, str]]:
    trainable, total = t.get("trainable_params", 0), t.get("total_params", 0)
    tokens, useful = t.get("tokens", 0), t.get("useful_tokens", 0)
    seconds = t.get("seconds", 0)
    pace = f", {count(round(tokens / seconds))} tokens a second" if seconds and tokens else ""
    return [
        ("Base", "@".join(str(t[k]) for k in ("base", "base_commit") if t.get(k))),
        ("Method", str(t.get("method", ""))),
        (
            "Parameters trained",
            f"{count(trainable)} of {count(total)} ({percent(trainable, total)})" if total else "",
        ),
        ("Records", count(t.get("train_records", 0))),
        ("Steps and epochs", f"{count(t.get('steps', 0))} steps, {t.get('epochs', 0):g} epochs"),
        (
            "Tokens",
            f"{count(tokens)}, {percent(useful, tokens)} of them in answers, which bear on the loss"
            if tokens
            else "",
        ),
        (
            "Cut short",
            f"{count(t.get('truncated', 0))} examples truncated, "
            f"{count(t.get('fully_masked', 0))} left without anything to learn",
        ),
        *(("Then", _later(one)) for one in t.get("later") or []),
        ("Device and time", f"{t.get('device', '')}, {duration(seconds)}{pace}"),
        ("Written to", ", ".join(str(t[k]) for k in ("adapter", "merged") if t.get(k))),
    ]


def _later(one: Mapping[str, Any]) -> str:
    """A training after fine-tuning, in a line."""
    losses = one["losses"]
    source = "@".join(str(one[k]) for k in ("source", "commit") if one.get(k))
    return (
        f"{one['kind']} ({source}): {count(len(losses))} steps on {count(one['records'])} "
        f"records, its loss from {figure(losses[0]['loss'])} to {figure(losses[-1]['loss'])}"
    )


def evaluation_section(page: Page, evaluation: Mapping[str, Any]) -> str:
    """Before and after on held-out records, as bars and as answers."""
    parts = []
    for key, name, meaning in METRICS:
        before, after = (evaluation.get(when, {}).get(key) for when in ("before", "after"))
        if before is None or after is None:
            continue
        values = f"{figure(before)} \N{RIGHTWARDS ARROW} {figure(after)}"
        change = f"{values}, {_change(before, after)}" if before else values
        drawn = page.chart(
            f"metric-{key}",
            f"{name}: base {figure(before)}, student {figure(after)}",
            "auto",
            partial(_draw_metric, before, after),
        )
        parts.append(
            f"<figure><h3>{text(name)}<small>{text(change)}</small></h3>{drawn}"
            f"<figcaption>{text(meaning)}</figcaption></figure>"
        )
    samples = evaluation.get("samples") or []
    shown = f"<h3>Answers side by side</h3>{side_by_side(samples)}" if samples else ""
    records = count(evaluation.get("records", 0))
    return (
        paragraph(f"Measured on {records} held-out records that the student never saw.", "note")
        + f'<div class="grid3">{"".join(parts)}</div>'
        + _notes(evaluation)
        + shown
    )


def _notes(summary: Mapping[str, Any]) -> str:
    return "".join(paragraph(note, "note") for note in summary.get("notes") or [])


def _draw_metric(before: float, after: float, theme: Theme) -> Figure:
    return before_after(theme, before, after)


def _change(before: float, after: float) -> str:
    share = 100 * (after - before) / before
    return f"{share:+.1f}%".replace("-", "\N{MINUS SIGN}")
