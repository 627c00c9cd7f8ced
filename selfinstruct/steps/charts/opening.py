"""The report's first part: headline tiles, and what became of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from selfinstruct.steps.charts.bill import BillEntry
from selfinstruct.steps.charts.figures import flow
from selfinstruct.steps.charts.markup import table, text
from selfinstruct.steps.charts.numbers import count, dollars, duration, figure, percent
from selfinstruct.steps.charts.page import Page


class FunnelCounts(Protocol):
    """How many came in at each step (`engine.accounts.Funnel`)."""

    @property
    def slots(self) -> int: ...  # noqa: D102
    @property
    def requests(self) -> int: ...  # noqa: D102
    @property
    def completions(self) -> int: ...  # noqa: D102
    @property
    def refused(self) -> int: ...  # noqa: D102
    @property
    def failed(self) -> int: ...  # noqa: D102
    @property
    def unjudged(self) -> int: ...  # noqa: D102
    @property
    def lost(self) -> int: ...  # noqa: D102
    @property
    def candidates(self) -> int: ...  # noqa: D102
    @property
    def kept(self) -> int: ...  # noqa: D102
    @property
    def rejected(self) -> dict[str, int]: ...  # noqa: D102
    @property
    def beyond_target(self) -> int: ...  # noqa: D102


def tiles(
    funnel: FunnelCounts | None,
    target: int | None,
    bill: Sequence[BillEntry],
    training: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any] | None,
    seconds: Mapping[str, float],
) -> str:
    """The headline numbers; a dash where a stage is not done. No `target`: nothing is generated."""
    kept = funnel.kept if funnel else 0
    spent = sum(line.cost for line in bill)
    candidates = funnel.candidates if funnel else 0
    each = f"{dollars(round(spent / kept))} per kept record" if kept else "nothing kept yet"
    parts = [
        *([] if target is None else _yield_tiles(kept, candidates, target)),
        _tile("Spent", dollars(spent), "" if target is None else each),
        _loss_tile(training, evaluation),
        _tile(
            "Time worked",
            duration(sum(seconds.values())) if seconds else "-",
            text(", ".join(f"{stage} {duration(spent)}" for stage, spent in seconds.items())),
        ),
    ]
    return f'<dl class="tiles">{"".join(parts)}</dl>'


def _yield_tiles(kept: int, candidates: int, target: int) -> list[str]:
    return [
        _tile(
            "Records kept",
            f"{count(kept)} <small>of {count(target)}</small>",
            f'<span class="meter" aria-hidden="true"><span style="width:{_width(kept, target)}">'
            f"</span></span>{percent(kept, target)} of the target",
        ),
        _tile(
            "Acceptance rate",
            percent(kept, candidates) if candidates else "-",
            f"of {count(candidates)} candidates",
        ),
    ]


def _tile(name: str, value: str, sub: str) -> str:
    return (
        f'<div><dt>{text(name)}</dt><dd class="value">{value}</dd><dd class="sub">{sub}</dd></div>'
    )


def _width(part: float, whole: float) -> str:
    return f"{min(100.0, 100 * part / whole if whole else 0):.1f}%"


def _loss_tile(training: Mapping[str, Any] | None, evaluation: Mapping[str, Any] | None) -> str:
    """Held-out loss before and after; the training loss where nothing was evaluated."""
    before, after = ((evaluation or {}).get(when, {}).get("loss") for when in ("before", "after"))
    if evaluation and before is not None and after is not None:
        sub = f"on {count(evaluation.get('records', 0))} held-out records"
        return _tile("Student's loss", _change(before, after), sub)
    losses = [row["loss"] for row in (training or {}).get("losses") or [] if row.get("loss")]
    if losses:
        value = _change(losses[0], losses[-1])
        return _tile("Student's loss", value, "in training; not evaluated yet")
    return _tile("Student's loss", "-", "not trained yet")


def _change(before: float, after: float) -> str:
    return f"{before:.2f} &rarr; {after:.2f}"


def funnel_section(page: Page, funnel: FunnelCounts) -> str:
    """From slots to kept records, with every reason; the parts add up to the candidates."""
    asked = max(1, funnel.completions - funnel.failed - funnel.refused - funnel.unjudged)
    notes = [
        f"{count(number)} {what}"
        for number, what in (
            (funnel.refused, "refused"),
            (funnel.failed, "failed"),
            (funnel.unjudged, "not judged yet"),
        )
        if number
    ]
    steps = [
        ("Slots", funnel.slots, "places in the run, judged in order"),
        ("Requests", funnel.requests, _lost(funnel.lost)),
        ("Completions", funnel.completions, ", ".join(notes) or "all judged"),
        ("Candidates", funnel.candidates, f"{figure(funnel.candidates / asked)} per completion"),
        ("Kept", funnel.kept, f"{percent(funnel.kept, funnel.candidates)} of the candidates"),
    ]
    strip = "".join(
        f"<li><span>{text(name)}</span><b>{count(number)}</b><span>{text(note)}</span></li>"
        for name, number, note in steps
    )
    parts = [f'<ol class="steps">{strip}</ol>']
    if funnel.candidates:
        label = f"Flow of {count(funnel.candidates)} candidates: {count(funnel.kept)} kept, " + (
            ", ".join(f"{count(n)} {reason}" for reason, n in funnel.rejected.items())
            or "none rejected"
        )
        top = dict(list(funnel.rejected.items())[:16])
        if rest := sum(funnel.rejected.values()) - sum(top.values()):
            top["other reasons"] = rest
        parts.append(
            page.chart(
                "flow",
                label,
                "auto",
                lambda theme: flow(theme, funnel.kept, funnel.beyond_target, top),
                kind="wide-only",
            )
        )
        parts.append(_verdict_table(funnel))
    return "".join(parts)


def _lost(lost: int) -> str:
    return f"{count(lost)} lost in a crash" if lost else "each paid for once"


def _verdict_table(funnel: FunnelCounts) -> str:
    """Each verdict with its count; says so if the counts should ever fail to add up."""
    entries = [("kept", funnel.kept, "kept")]
    if funnel.beyond_target:
        entries.append(("beyond the target", funnel.beyond_target, "beyond"))
    entries += [(reason, number, "") for reason, number in funnel.rejected.items()]
    most = max(number for _, number, _ in entries) or 1
    rows = [
        (
            text(name.replace("_", " ")),
            count(number),
            percent(number, funnel.candidates),
            f'<span class="track"><span class="bar {kind}" style="width:{_width(number, most)}">'
            "</span></span>",
        )
        for name, number, kind in entries
    ]
    total = sum(number for _, number, _ in entries)
    made = table(
        "What became of the candidates",
        ("Verdict", "Candidates", "Share", ""),
        rows,
        numbers=(1, 2),
        foot=[("All candidates", count(total), percent(total, funnel.candidates), "")],
    )
    if total != funnel.candidates:
        made += (
            '<p class="warning">These do not add up to the '
            f"{count(funnel.candidates)} candidates of the ledger; generate judges them again.</p>"
        )
    return made
