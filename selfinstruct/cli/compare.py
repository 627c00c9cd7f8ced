"""``selfinstruct compare A B``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selfinstruct.cli.common import console, json_option, print_json

if TYPE_CHECKING:
    from selfinstruct.stages.compare import Comparison, Side

VERBS = 5


@click.command("compare")
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@json_option
def command(first: str, second: str, as_json: bool) -> None:
    """Compare two runs or datasets: size, lengths, variety, verbs, topics, what they share.

    FIRST and SECOND are a run's folder (its kept records), or JSON lines, JSON, CSV, Parquet, or a
    folder of them. Nothing is written. Topics need the extra semantic.
    """
    from selfinstruct.stages.compare import compare

    found = compare(Path(first), Path(second))
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Comparison) -> None:
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("")
    for side in (found.first, found.second):
        table.add_column(Path(side.source).name, justify="right")
    for name, show in _rows(found):
        table.add_row(name, show(found.first), show(found.second))
    shared = found.overlap
    sizes = found.first.diversity.records, found.second.diversity.records
    table.add_row(
        "of them in the other, same task",
        _share(shared.same_of_first, sizes[0]),
        _share(shared.same_of_second, sizes[1]),
    )
    table.add_row(
        "of them in the other, near-duplicates",
        _share(shared.near_of_first, sizes[0]),
        _share(shared.near_of_second, sizes[1]),
    )
    for topic in found.topics:
        table.add_row(
            f"topic: {topic.name}", _share(topic.first, sizes[0]), _share(topic.second, sizes[1])
        )
    out.print(table)


def _rows(found: Comparison) -> list[tuple[str, Callable[[Side], str]]]:
    rows: list[tuple[str, Callable[[Side], str]]] = [
        ("records", lambda side: f"{side.diversity.records:,}")
    ]
    if found.first.faulty or found.second.faulty:
        rows.append(("rows that are no record", lambda side: f"{side.faulty:,}"))
    for field in ("instruction", "input", "output"):

        def words(side: Side, field: str = field) -> str:
            length = side.diversity.lengths[field]
            return f"{length.mean:.1f} ({length.median:g})" if length.records else "-"

        rows.append((f"words of the {field}, mean (median)", words))
    rows.append(
        (
            "with an input",
            lambda side: _share(side.diversity.lengths["input"].records, side.diversity.records),
        )
    )
    for n in (1, 2, 3):

        def distinct(side: Side, n: int = n) -> str:
            return f"{side.diversity.distinct[str(n)]:.3f}"

        rows.append((f"distinct-{n} of the instructions", distinct))
    rows.append(("nearest other instruction, median ROUGE-L", _median_nearest))
    rows.append(("root verbs", lambda side: f"{len([v for v in side.diversity.verbs if v]):,}"))
    rows.append(("most common", _common))
    return rows


def _median_nearest(side: Side) -> str:
    nearest = side.diversity.nearest
    return f"{nearest[len(nearest) // 2]:.2f}" if nearest else "-"


def _common(side: Side) -> str:
    verbs = [verb for verb in side.diversity.verbs if verb][:VERBS]
    return ", ".join(verbs) or "-"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else "-"
