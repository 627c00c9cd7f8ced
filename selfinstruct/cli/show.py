"""What `generate`, `run` and `status` print of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfinstruct.cli.common import console, print_json
from selfinstruct.core.money import show, to_dollars

if TYPE_CHECKING:
    from rich.console import RenderableType

    from selfinstruct.api import Run
    from selfinstruct.engine.accounts import BillLine, Funnel
    from selfinstruct.engine.spending import Spending


def print_status(run: Run, as_json: bool) -> None:
    """The funnel, the bill and what is done, as tables or as JSON."""
    if as_json:
        print_json(as_data(run))
        return
    counts, lines, went = run.funnel(), run.bill(), run.spending()
    out = console()
    if run.recipe.teacher is None:
        out.print(f"\n[bold]{run.folder.path}[/]  {_given(run)}")
    else:
        out.print(f"\n[bold]{run.folder.path}[/]  target {run.recipe.generate.target:,}")
        if documents := run.documents():
            out.print(f"  {documents}", markup=False)
        out.print(_funnel_table(counts, went))
    out.print(_bill_table(lines, counts.kept))
    if any(line.cost for line in went.strategies):
        out.print(_strategy_table(went))
    learned = _learned(run)
    if learned:
        out.print(learned)
    for name, place in _places(run).items():
        out.print(f"  {name:<12}{place or 'not done yet'}")


def _given(run: Run) -> str:
    """The size of a dataset that was given, not generated."""
    made = run.folder.read_json(run.folder.dataset / "dataset.json")
    if made is None:
        return "on data that was given"
    return f"on data that was given: {made['train']:,} to train on, {made['held_out']:,} held out"


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
        "documents": run.documents(),
        "funnel": msgspec.to_builtins(counts),
        "bill": [
            {**msgspec.to_builtins(line), "cost": to_dollars(line.cost), "currency": "USD"}
            for line in lines
        ],
        "cost_usd": to_dollars(total),
        "cost_per_kept_record_usd": to_dollars(total) / counts.kept if counts.kept else None,
        "spending_usd": _spending_data(run.spending()),
        "done": {name: place for name, place in _places(run).items() if place},
    }


def _spending_data(went: Spending) -> dict[str, Any]:
    strategies = {
        line.strategy: {
            "candidates": line.candidates,
            "kept": line.kept,
            "cost": to_dollars(line.cost),
            "per_kept_record": None if line.per_kept is None else to_dollars(line.per_kept),
        }
        for line in went.strategies
    }
    return {
        "strategies": strategies,
        "kept": to_dollars(went.kept),
        "rejected": {reason: to_dollars(cost) for reason, cost in went.rejected.items()},
        "beyond_target": to_dollars(went.beyond_target),
        "rest": to_dollars(went.rest),
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


def _funnel_table(counts: Funnel, went: Spending) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")

    def dollars(cost: int) -> str:
        return show(cost) if cost else ""

    table.add_row(f"{counts.completions:,}", "completions")
    for label, number in (
        ("  declined by the teacher", counts.refused),
        ("  given up after an error", counts.failed),
        ("  not needed for this target, used first by a larger one", counts.unjudged),
    ):
        if number:
            table.add_row(f"{number:,}", label)
    table.add_row(f"{counts.candidates:,}", "candidates")
    table.add_row(f"[green]{counts.kept:,}[/]", "  [green]kept[/]", dollars(went.kept))
    for flag, number in counts.flagged.items():
        table.add_row(f"{number:,}", f"    with the flag: {flag.replace('_', ' ')}")
    for reason, number in counts.rejected.items():
        cost = went.rejected.get(reason, 0)
        table.add_row(f"[red]{number:,}[/]", f"  {reason.replace('_', ' ')}", dollars(cost))
    if counts.beyond_target:
        label, cost = "  beyond the target", went.beyond_target
        table.add_row(f"{counts.beyond_target:,}", label, dollars(cost))
    if went.rest:
        table.add_row("", "  calls without a candidate", dollars(went.rest))
    return table


def _strategy_table(went: Spending) -> RenderableType:
    from rich.table import Table

    table = Table(
        title="Calls by strategy", title_justify="left", box=None, pad_edge=False, padding=(0, 2)
    )
    table.add_column("strategy")
    for heading in ("kept", "of candidates", "cost", "a kept record"):
        table.add_column(heading, justify="right")
    for line in went.strategies:
        each = "" if line.per_kept is None else show(line.per_kept)
        table.add_row(
            line.strategy, f"{line.kept:,}", f"{line.candidates:,}", show(line.cost), each
        )
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
