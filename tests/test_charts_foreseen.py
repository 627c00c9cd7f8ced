"""The report's parts on a training's plan and on what was measured meanwhile."""

from __future__ import annotations

from typing import Any

from selfinstruct.steps.charts.foreseen import measured_part, plan_table, spread
from selfinstruct.steps.charts.page import Page

PLAN = {
    "need": 3 << 30, "seconds": 3600.0, "steps": 40, "tokens": 12_345, "micro_batch_size": 8,
    "cost": 3 * 10**12, "kwh": 0.7,
}  # fmt: skip
ACTUAL = {
    "micro_batch_size": 4, "peak_bytes": 7 << 29, "seconds": 3300.0, "corrected_seconds": 3240.0,
    "cost": 2 * 10**12, "kwh": None,
}  # fmt: skip


def measured(count: int) -> list[dict[str, Any]]:
    sample = {"prompt": "Say <b>", "reference": "The answer."}
    return [
        {"step": step, "loss": 2.0 / step, "samples": [sample | {"answer": f"at {step}"}]}
        for step in range(1, count + 1)
    ]


def test_plan_and_reality_stand_side_by_side() -> None:
    """Memory, time, batch, cost and power have both figures; what is not known is said to be so."""
    found = plan_table({"plan": PLAN, "actual": ACTUAL, "steps": 40, "tokens": 12_345})
    for figure in ("3.00 GiB", "3.50 GiB", "1 h", "54 min", "55 min", "12,345", "0.7 kWh"):
        assert figure in found
    assert "not known" in found
    assert plan_table({"steps": 40}) == ""


def test_measurements_have_a_curve_a_table_and_answers() -> None:
    """The kept step is marked, and each prompt has its answers by step, escaped."""
    page = Page("run", "lead")
    found = measured_part(page, {"held_out": measured(3), "best_step": 3})
    assert "curve-held-out" in found
    assert found.count("kept") == 1
    assert "at 1" in found
    assert "Say <b>" not in found
    assert "Say &lt;b&gt;" in found
    assert measured_part(page, {"held_out": []}) == ""


def test_of_many_measurements_some_are_shown() -> None:
    """Evenly spread, the first and the last among them."""
    shown = spread(measured(100), 12)
    assert len(shown) == 12
    assert (shown[0]["step"], shown[-1]["step"]) == (1, 100)
    assert len(spread(measured(5), 12)) == 5
