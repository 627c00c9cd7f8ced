"""Direct preference optimization (Rafailov et al. 2023) with TRL's DPOTrainer.

It goes on from the fine-tuned student, which is also the reference it is held to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.setup import Build, Setup, keep_precision, one_gpu


class Pair(msgspec.Struct, frozen=True):
    """A prompt with a better and a worse answer, as token ids."""

    id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        """Tokens computed: the prompt goes with each answer."""
        return 2 * len(self.prompt) + self.learned

    @property
    def learned(self) -> int:
        """Tokens with loss."""
        return len(self.chosen) + len(self.rejected)


class Pairs(msgspec.Struct, frozen=True):
    """The pairs that fit, the ids of those cut short, and of those left out as all prompt."""

    kept: list[Pair]
    truncated: list[str]
    fully_masked: list[str]


def tokenize_pairs(
    rows: Sequence[Mapping[str, Any]], form: StudentFormat, max_length: int
) -> Pairs:
    """`rows` of `own_data.read_pairs` as pairs of at most `max_length` tokens each."""
    kept, truncated, masked = [], [], []
    turns = [
        (str(row["id"]), *form.turn(row, row[which]))
        for row in rows
        for which in ("chosen", "rejected")
    ]
    made = form.singles(turns)
    for chosen, rejected in zip(made[::2], made[1::2], strict=True):
        room = max_length - len(chosen.prompt)
        if room <= 0:
            masked.append(chosen.id)
            continue
        if max(len(chosen.answer), len(rejected.answer)) > room:
            truncated.append(chosen.id)
        kept.append(Pair(chosen.id, chosen.prompt, chosen.answer[:room], rejected.answer[:room]))
    return Pairs(kept, truncated, masked)


def build(beta: float, reference: Any = None) -> Build:
    """What makes a DPOTrainer for rows of `Pair`.

    Args:
        beta: how strongly the student is held to the reference.
        reference: the student as it was; not needed for an adapter, of which TRL keeps a copy.
    """

    def make(setup: Setup) -> Any:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        class PairTrainer(DPOTrainer):  # type: ignore[misc]  # the library is untyped
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset  # the tokens are ours, so that prompts are those of fine-tuning

        arguments = DPOConfig(**setup.arguments, beta=beta, max_length=None)
        columns = {
            "prompt_ids": [pair.prompt for pair in setup.rows],
            "chosen_ids": [pair.chosen for pair in setup.rows],
            "rejected_ids": [pair.rejected for pair in setup.rows],
        }
        trainer = PairTrainer(
            model=setup.model,
            ref_model=reference,
            args=one_gpu(arguments, setup.plan),
            train_dataset=Dataset.from_dict(columns).select(setup.order),
            processing_class=setup.tokenizer,
            callbacks=setup.callbacks,
        )
        keep_precision(setup.model)
        return trainer

    return make


def drop_reference(model: Any) -> None:
    """Remove TRL's copy of the adapter, which would be saved with it."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
