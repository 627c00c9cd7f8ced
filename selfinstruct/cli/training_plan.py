"""The plan of a training, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct.core.money import show

if TYPE_CHECKING:
    from selfinstruct.steps.planning.outlook import Outlook

GIB = 1 << 30
PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "loss": "logits and loss",
    "overhead": "libraries, context",
}


def print_plan(plan: Outlook, base: str) -> None:
    """Print what the training of `base` takes, and what would fit where it does not."""
    from rich.table import Table

    from selfinstruct.cli.common import console

    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a long path is shown whole
    for name, value in facts(plan, base):
        table.add_row(name, value)
    out.print(table)
    memory = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2),
        title="Memory of one process",
        title_justify="left",
    )
    memory.add_column("")
    memory.add_column("GiB", justify="right")
    for name, words in PARTS.items():
        memory.add_row(words, f"{getattr(plan.memory, name) / GIB:.2f}")
    memory.add_row("needed", f"{plan.need / GIB:.2f}")
    memory.add_row("to be had", f"{plan.have / GIB:.2f}")
    out.print(memory)
    if plan.fits:
        out.print("[green]it fits[/]")
    else:
        out.print("[red]it does not fit[/]; what would:")
        for one in plan.instead or ["a machine with more memory"]:
            out.print(f"  {one}", markup=False)
    if plan.merging > plan.have:
        needs = f"merging the adapter takes {plan.merging / GIB:.1f} GiB"
        out.print(
            f"{needs}, which is not there: give --set student.merge=false"
            if plan.device == "cpu"
            else f"{needs}, so it is done on the processor; --set student.merge=false leaves it out"
        )


def facts(plan: Outlook, base: str) -> list[tuple[str, str]]:
    """The plan's lines but for its memory, as names and values."""
    share = plan.trainable / plan.parameters
    where = plan.device_name or plan.device
    how = f"{plan.processes} x {where}" if plan.processes > 1 else where
    sharded = ", the model split among them" if plan.sharded else ""
    recomputed = ", activations recomputed" if plan.recompute else ""
    return [
        ("base", base),
        ("method", plan.method),
        ("trained", f"{plan.trainable:,} of {plan.parameters:,} parameters ({share:.2%})"),
        ("on", how + sharded),
        (
            "batch",
            f"{plan.batch_size} = {plan.micro_batch_size} x {plan.accumulation} accumulated"
            + (f" x {plan.processes} processes" if plan.processes > 1 else "")
            + recomputed,
        ),
        ("with", plan.throughput.words),
        ("steps", f"{plan.steps:,} ({plan.epochs:g} epochs, {plan.examples:,} examples)"),
        (
            "tokens",
            f"{plan.tokens:,}, with padding {plan.padded_tokens:,}; "
            f"the longest example has {plan.longest:,}",
        ),
        ("time", _time(plan)),
        ("cost", "free (student.gpu_hour_price is 0)" if plan.cost == 0 else
         "not known" if plan.cost is None else show(plan.cost)),
        ("power", "not known" if plan.kwh is None else f"{plan.kwh:.2f} kWh, of the GPUs"),
    ]  # fmt: skip


def _time(plan: Outlook) -> str:
    from selfinstruct.cli.training_panel import clock

    if plan.seconds is None or plan.speed is None:
        return "not known: the GPU is not in the table"
    rate = plan.speed.flops / 1e12
    basis = f"{rate:,.2f} TFLOP/s, {plan.speed.source}"
    return f"{clock(plan.seconds)} at {basis}; corrected after the first 20 steps"
