"""Distillation from a local teacher's logits with TRL's DistillationTrainer.

On-policy, as in Agarwal et al. 2023: the student answers, and learns the teacher's distribution
over the next token at each place of its own answers. Both must therefore have the same tokens.
"""

from __future__ import annotations

from typing import Any

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training.setup import Build, Setup, keep_precision, one_gpu

_PROBE = "Tokens, 1 of 2:\n  são çünkü 词元 🙂"


def check_tokens(student: Any, teacher: Any, name: str) -> None:
    """Raises `UserError` where two tokenizers do not give the same text the same ids."""
    mine, other = student.get_vocab(), teacher.get_vocab()
    texts = [tokenizer(_PROBE, add_special_tokens=False) for tokenizer in (student, teacher)]
    if mine == other and texts[0]["input_ids"] == texts[1]["input_ids"]:
        return
    shared = len(mine.items() & other.items())
    raise UserError(
        f"student.distillation.teacher: {name} has other tokens than the student's base "
        f"({shared:,} of {len(mine):,} are the same), so its logits mean something else; give a "
        "teacher of the base's family, or leave distillation out and let it write the records"
    )


def match_rows(teacher: Any, rows: int, name: str) -> None:
    """Give `teacher` the student's number of embedding rows; those past the tokens are padding.

    Sizes of one family are often padded differently (Qwen2.5: 151,936 and 152,064).
    """
    own = teacher.get_input_embeddings().num_embeddings
    if own < rows:
        raise UserError(
            f"student.distillation.teacher: {name} has {own:,} embedding rows and the student "
            f"{rows:,}; the teacher's must be as many or more"
        )
    if own > rows:
        teacher.resize_token_embeddings(rows)


def build(teacher: Any, *, beta: float, temperature: float, max_new_tokens: int) -> Build:
    """What makes a DistillationTrainer for rows of `format.Example`, whose answers are not used.

    Args:
        teacher: the model that is learned from, on the student's device.
        beta: 0 is the forward KL divergence, 1 the reverse, 0.5 Jensen-Shannon's.
        temperature: of the student's sampling and of both distributions.
        max_new_tokens: tokens of an answer at most.
    """

    def make(setup: Setup) -> Any:
        from datasets import Dataset
        from trl import DistillationConfig, DistillationTrainer

        class PromptTrainer(DistillationTrainer):  # type: ignore[misc]  # the library is untyped
            def _tokenize_prompts(
                self, prompts: list[Any]
            ) -> tuple[list[Any], None, dict[str, Any]]:
                return prompts, None, {}  # they are token ids already

        arguments = DistillationConfig(
            **setup.arguments,
            beta=beta,
            temperature=temperature,
            max_completion_length=max_new_tokens,
            shuffle_dataset=False,
        )
        order = whole_steps(setup.order, setup.plan.batch_size)
        trainer = PromptTrainer(
            model=setup.model,
            teacher_model=teacher,
            args=one_gpu(arguments, setup.plan),
            train_dataset=Dataset.from_dict({"prompt": [row.prompt for row in setup.rows]}).select(
                order
            ),
            processing_class=setup.tokenizer,
            callbacks=setup.callbacks,
        )
        keep_precision(setup.model)
        return trainer

    return make


def whole_steps(order: list[int], batch_size: int) -> list[int]:
    """`order`, its last step filled up from the beginning: the trainer takes whole steps only."""
    missing = -len(order) % batch_size
    return order + (order * batch_size)[:missing]
