"""Supervised fine-tuning of a causal language model with TRL's SFTTrainer: loss on answers."""

from __future__ import annotations

from typing import Any

from selfinstruct.steps.training.setup import Setup, keep_precision, one_gpu


def build(setup: Setup) -> Any:
    """An SFTTrainer for rows of `format.Example`; tokens, labels and order are ours."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **setup.arguments,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
    )
    columns = {
        "input_ids": [row.prompt + row.answer for row in setup.rows],
        "labels": [[-100] * len(row.prompt) + row.labels for row in setup.rows],
    }
    trainer = SFTTrainer(
        model=setup.model,
        args=one_gpu(arguments, setup.plan),
        train_dataset=Dataset.from_dict(columns).select(setup.order),
        processing_class=setup.tokenizer,
        callbacks=setup.callbacks,
    )
    keep_precision(setup.model)
    return trainer
