"""Measuring on held-out records while a model is trained: its loss, and some of its answers.

Nothing here draws a random number or changes a weight, so a training goes on as if it had not
been measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import FolderError
from selfinstruct.core.sections.student import EvaluateConfig
from selfinstruct.steps.planning.room import is_sharded
from selfinstruct.steps.training.format import Examples, StudentFormat
from selfinstruct.steps.training.measures import greedy, mean_loss, spread
from selfinstruct.steps.training.plan import process_count
from selfinstruct.steps.training.records import Row, read_split


class Sample(msgspec.Struct, frozen=True):
    """A held-out prompt, what the records answer, and what the model answered."""

    prompt: str
    reference: str
    answer: str


class Measured(msgspec.Struct, frozen=True):
    """One measurement: mean loss per answer token, and sample answers."""

    step: int
    loss: float
    samples: list[Sample]


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured, and how often.

    `examples` are those of `format.Examples`, `asked` the prompts that are answered, with the text
    and the reference shown for each. `patience` is how many measurements may pass without a better
    loss before training stops; None for any number.
    """

    every: int
    patience: int | None
    examples: Sequence[Any]
    asked: Sequence[tuple[list[int], str, str]]
    tokenizer: Any
    stop_ids: Sequence[int]
    max_new_tokens: int

    def measure(self, model: Any, step: int) -> Measured:
        """Measure `model`, and leave it in training mode. All processes take part."""
        model.eval()
        pad = self.tokenizer.pad_token_id
        loss = self._loss(model, pad)
        answers = greedy(
            model,
            [ids for ids, _, _ in self.asked],
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.stop_ids,
            pad_id=pad,
        )
        model.train()
        samples = [
            Sample(prompt, reference, self.tokenizer.decode(ids, skip_special_tokens=True).strip())
            for (_, prompt, reference), ids in zip(self.asked, answers, strict=True)
        ]
        return Measured(step, loss, samples)

    def _loss(self, model: Any, pad: int) -> float:
        """Mean loss over all examples; processes that each hold the whole model share them out."""
        import torch

        processes = process_count()
        if processes == 1 or is_sharded():
            return mean_loss(model, self.examples, pad_id=pad)
        import torch.distributed as dist

        mine = self.examples[dist.get_rank() :: processes]
        tokens = sum(example.learned for example in mine)
        total = mean_loss(model, mine, pad_id=pad) * tokens if mine else 0.0
        device = next(model.parameters()).device
        both = torch.tensor([total, tokens], dtype=torch.float64, device=device)
        dist.all_reduce(both)
        return float(both[0] / both[1])


def choose_held_out(
    dataset: Path,
    form: StudentFormat,
    max_length: int,
    settings: EvaluateConfig,
    *,
    every: int,
    patience: int | None,
    sampled: bool,
) -> HeldOut:
    """What is measured each `every` steps: as many records of the test split as `settings` says.

    Args:
        dataset: the dataset folder.
        form: how records are written.
        max_length: tokens of an example at most.
        settings: how many records and samples, and how long an answer may be.
        every, patience: see `HeldOut`.
        sampled: whether some prompts are answered too.

    Raises `FolderError` where there are no held-out records, or none that fits.
    """
    rows, _ = form.taken(read_split(dataset, "test"))
    rows = [rows[at] for at in spread(len(rows), settings.max_records)]
    asked = [rows[at] for at in spread(len(rows), settings.samples)] if sampled else []
    return HeldOut(
        every=every,
        patience=patience,
        examples=measurable(dataset, form, rows, max_length).kept,
        asked=[
            (ids, "\n\n".join(filter(None, [row["instruction"], row["input"]])), row["output"])
            for row, ids in zip(asked, form.prompt_ids(asked), strict=True)
        ],
        tokenizer=form.tokenizer,
        stop_ids=form.stop_ids,
        max_new_tokens=settings.max_new_tokens,
    )


def measurable(
    dataset: Path, form: StudentFormat, rows: Sequence[Row], max_length: int
) -> Examples:
    """The held-out `rows` as examples. Raises `FolderError` where no answer is left to measure."""
    found = form.examples(rows, max_length)
    if not found.kept:
        raise FolderError(
            f"{dataset}: every held-out prompt is as long as student.max_length={max_length} "
            "tokens, so no answer can be measured; raise it"
        )
    return found


def best_of(measured: Sequence[Measured]) -> Measured | None:
    """The measurement with the least loss, the earliest of equal ones."""
    return min(measured, key=lambda one: one.loss, default=None)


def is_over(measured: Sequence[Measured], patience: int | None) -> bool:
    """Whether the last `patience` measurements brought no better loss than there was before."""
    best = best_of(measured)
    if patience is None or best is None:
        return False
    return sum(one.step > best.step for one in measured) >= patience
