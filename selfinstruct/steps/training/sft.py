"""Supervised fine-tuning of a causal language model with TRL's SFTTrainer: loss on answers."""

from __future__ import annotations

from typing import Any

from selfinstruct.steps.training.answer_loss import add_answer_head
from selfinstruct.steps.training.format import IGNORED
from selfinstruct.steps.training.setup import Setup, fillers, keep_precision, one_gpu


def build(setup: Setup) -> Any:
    """An SFTTrainer for rows of `format.Example`; tokens, labels and order are ours."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **setup.arguments,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,  # it would fill rows anew: what a step learns from would be another
        padding_free=setup.plan.throughput.packing,
    )
    filler = [setup.tokenizer.pad_token_id]
    columns = {
        "input_ids": [*(row.prompt + row.answer for row in setup.rows), filler],
        "labels": [*([IGNORED] * len(row.prompt) + row.labels for row in setup.rows), [IGNORED]],
    }
    order = setup.order + [len(setup.rows)] * fillers(setup)
    trainer_class = _answer_trainer() if setup.plan.sparse_head else SFTTrainer
    trainer = trainer_class(
        model=setup.model,
        args=one_gpu(arguments, setup.plan),
        train_dataset=Dataset.from_dict(columns).select(order),
        processing_class=setup.tokenizer,
        callbacks=setup.callbacks,
    )
    keep_precision(setup.model)
    return trainer


def _answer_trainer() -> Any:
    from trl import SFTTrainer

    class AnswerTrainer(SFTTrainer):  # type: ignore[misc]  # the library is untyped
        """SFTTrainer with a loss that is computed on answers alone, and no other figures.

        TRL's figures would have the processor wait for the GPU in each micro-batch.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # TRL's own kernel does the same on GPUs; what scales its logits is left to TRL too.
            kernel = self.args.device.type in ("cuda", "xpu")
            sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
            self._ours = not (kernel or sharded) and add_answer_head(self.model)

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if return_outputs or num_items_in_batch is None or self.aux_loss_enabled:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # Padding is on the right, where causal attention never looks, and has no labels.
            # Without its mask, attention skips what lies above the diagonal.
            seen = {name: value for name, value in inputs.items() if name != "attention_mask"}
            if self._ours:
                loss = model(**seen, answer_loss=True)
            else:
                loss = -model(**seen, fused_lm_head=True).log_probs.sum()
            # The count is of all processes, whose gradients are then averaged.
            return loss / num_items_in_batch * self.accelerator.num_processes

    return AnswerTrainer
