"""Supervised fine-tuning of an encoder-decoder (T5 and its kin) with transformers' Seq2SeqTrainer.

TRL has no trainer for these. The encoder reads the prompt; the decoder learns the answer.

T5's own loss is the mean of a micro-batch, which the trainer adds up over a step as if it were a
share of the step's: with eight micro-batches it would be eight times as large, gradients too, and a
short answer's tokens would weigh more. Here it is the mean over the tokens of the step.
"""

from __future__ import annotations

from typing import Any

from selfinstruct.steps.training.format import IGNORED
from selfinstruct.steps.training.setup import Setup, fillers, one_gpu


def build(setup: Setup) -> Any:
    """A Seq2SeqTrainer for rows of `format.Example`."""
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    prompts = [*(row.prompt for row in setup.rows), [setup.tokenizer.pad_token_id]]
    columns = {
        "input_ids": prompts,
        "attention_mask": [[1] * len(prompt) for prompt in prompts],
        "labels": [*(row.labels for row in setup.rows), [IGNORED]],
    }
    order = setup.order + [len(setup.rows)] * fillers(setup)
    return Seq2SeqTrainer(
        model=setup.model,
        args=one_gpu(Seq2SeqTrainingArguments(**setup.arguments), setup.plan),
        train_dataset=Dataset.from_dict(columns).select(order),
        # With the model, it also makes the decoder's inputs from the labels.
        data_collator=DataCollatorForSeq2Seq(setup.tokenizer, model=_own(setup.model)),
        processing_class=setup.tokenizer,
        callbacks=setup.callbacks,
        compute_loss_func=_share_of_mean,
    )


def _share_of_mean(outputs: Any, labels: Any, num_items_in_batch: Any) -> Any:
    """The summed loss (nats) of a micro-batch's labels, over the number of those of its step."""
    from torch.nn.functional import cross_entropy

    logits = outputs.logits.flatten(0, 1).float()
    return cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch


def _own(model: Any) -> Any:
    """The model inside its adapter, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
