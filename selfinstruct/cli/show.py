"""What `generate`, `run` and `status` print of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfinstruct.cli.common import console, print_json
from selfinstruct.core.money import show, to_dollars

if TYPE_CHECKING:
    from rich.console import RenderableType

    from selfinstruct.api import Run
    from selfinstruct.engine.accounts import BillLine, Funnel


def print_status(run: Run, as_json: bool) -> None:
    """The funnel, the bill and what is done, as tables or as JSON."""
    counts, lines = run.funnel(), run.bill()
    if as_json:
        print_json(as_data(run))
        return
    out = console()
    out.print(f"\n[bold]{run.folder.path}[/]  target {run.recipe.generate.target:,}")
    out.print(_funnel_table(counts))
    out.print(_bill_table(lines, counts.kept))
    learned = _learned(run)
    if learned:
        out.print(learned)
    for name, place in _places(run).items():
        out.print(f"  {name:<12}{place or 'not done yet'}")


def _learned(run: Run) -> str:
    """What the student learned, in one line; nothing where it was not measured."""
    result = run.folder.read_json(run.folder.evaluation / "evaluation.json")
    if result is None:
        return ""
    before, after = result["before"]["loss"], result["after"]["loss"]
    line = f"Held-out loss {before:.3f} -> {after:.3f} on {result['records']} records"
    if result.get("same_weights_as_teacher"):
        line += "\n(teacher and student are the same weights: no quality is claimed)"
    return line


def as_data(run: Run) -> dict[str, Any]:
    """A run's state as built-in types."""
    import msgspec

    counts, lines = run.funnel(), run.bill()
    total = sum(line.cost for line in lines)
    return {
        "run": str(run.folder.path),
        "target": run.recipe.generate.target,
        "funnel": msgspec.to_builtins(counts),
        "bill": [
            {**msgspec.to_builtins(line), "cost": to_dollars(line.cost), "currency": "USD"}
            for line in lines
        ],
        "cost_usd": to_dollars(total),
        "cost_per_kept_record_usd": to_dollars(total) / counts.kept if counts.kept else None,
        "done": {name: place for name, place in _places(run).items() if place},
    }


def _places(run: Run) -> dict[str, str | None]:
    """Where each stage's result is, None where it is not done."""
    folder = run.folder
    results = {
        "dataset": (folder.dataset / "dataset.json", folder.dataset),
        "student": (folder.student / "training.json", folder.student),
        "evaluation": (
            folder.evaluation / "evaluation.json",
            folder.evaluation / "evaluation.json",
        ),
        "report": (folder.report, folder.report),
    }
    return {name: str(place) if done.exists() else None for name, (done, place) in results.items()}


def _funnel_table(counts: Funnel) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(f"{counts.completions:,}", "completions")
    for label, number in (
        ("  declined by the teacher", counts.refused),
        ("  given up after an error", counts.failed),
        ("  not needed for this target, used first by a larger one", counts.unjudged),
    ):
        if number:
            table.add_row(f"{number:,}", label)
    table.add_row(f"{counts.candidates:,}", "candidates")
    table.add_row(f"[green]{counts.kept:,}[/]", "  [green]kept[/]")
    for flag, number in counts.flagged.items():
        table.add_row(f"{number:,}", f"    with the flag: {flag.replace('_', ' ')}")
    for reason, number in counts.rejected.items():
        table.add_row(f"[red]{number:,}[/]", f"  {reason.replace('_', ' ')}")
    if counts.beyond_target:
        table.add_row(f"{counts.beyond_target:,}", "  beyond the target")
    return table


def _bill_table(lines: list[BillLine], kept: int) -> RenderableType:
    from rich.table import Table

    table = Table(title="Bill", title_justify="left", box=None, pad_edge=False, padding=(0, 2))
    for heading in ("stage", "item", "quantity"):
        table.add_column(heading)
    table.add_column("cost", justify="right")
    items: dict[tuple[str, str], list[BillLine]] = {}
    for line in lines:
        items.setdefault((line.stage, line.item), []).append(line)
    for (stage, item), parts in items.items():
        quantity = ", ".join(_quantity(line) for line in parts)
        table.add_row(stage, item, quantity, show(sum(line.cost for line in parts)))
    total = sum(line.cost for line in lines)
    each = f"{show(total // kept)} a kept record" if kept else ""
    table.add_row("[bold]total[/]", "", each, f"[bold]{show(total)}[/]")
    return table


def _quantity(line: BillLine) -> str:
    number = f"{line.quantity:,.0f}" if line.quantity >= 10 else f"{line.quantity:,.3g}"
    return f"{'about ' if line.estimated else ''}{number} {line.unit}"
