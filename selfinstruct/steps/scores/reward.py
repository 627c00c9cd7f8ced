"""A reward model's number for each record: how much people (or a judge) would like the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.scores.models import load

Task = Candidate | SeedTask

BATCH_TOKENS = 8192  # padding included
CHUNK = 512
DIGITS = 5  # what is kept of a reward; past it, padding shows


class Reward:
    """Rewards by a sequence classifier with one label, such as those trained by TRL.

    Args:
        name: a model folder or a Hub id.
        policy: whether the Hub may be asked.
        device: "auto", "cpu", "cuda" or "mps".
        max_length: tokens of question and answer; what is longer is cut.

    Raises `UserError` where there is no such model, or it is no reward model.
    """

    def __init__(self, name: str, policy: Policy, *, device: str, max_length: int) -> None:
        loaded = load(name, policy, device, "select.reward_model", task="reward")
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._max_length = max_length
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        # A decoder reads its score off the last token that is no padding, so it must know that one.
        self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self.identity = f"{loaded.identity}:{max_length}"

    def rewards(self, tasks: Sequence[Task]) -> Iterator[list[tuple[int, float]]]:
        """Batches of (position in `tasks`, reward)."""
        import torch

        for start in range(0, len(tasks), CHUNK):
            rows = self._ids(tasks[start : start + CHUNK])
            for batch in _batches(rows):
                padded = self._tokenizer.pad(
                    {"input_ids": [rows[at] for at in batch]},
                    padding_side="right",
                    return_tensors="pt",
                ).to(self._model.device)
                with torch.inference_mode():
                    logits = self._model(
                        input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]
                    ).logits
                found = logits[:, 0].float().tolist()
                yield [(start + at, round(x, DIGITS)) for at, x in zip(batch, found, strict=True)]

    def _ids(self, tasks: Sequence[Task]) -> list[list[int]]:
        """Question and answer as the model's own conversation, or as a pair of texts."""
        limit = {"truncation": True, "max_length": self._max_length}
        asked = [f"{t.instruction}\n\n{t.input}" if t.input else t.instruction for t in tasks]
        if not self._tokenizer.chat_template:
            pairs = self._tokenizer(asked, [task.output for task in tasks], **limit)
            return list(pairs["input_ids"])
        texts = [
            self._tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": task.output},
                ],
                tokenize=False,
            )
            for question, task in zip(asked, tasks, strict=True)
        ]
        return list(self._tokenizer(texts, add_special_tokens=False, **limit)["input_ids"])


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Positions of rows of about the same length."""
    batch: list[int] = []
    for at in sorted(range(len(rows)), key=lambda n: (len(rows[n]), n)):
        if batch and (len(batch) + 1) * len(rows[at]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
