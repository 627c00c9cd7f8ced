"""How likely a local model finds an answer: perplexity, and IFD (instruction-following difficulty).

IFD (Li et al. 2023, arXiv 2308.12032) is the model's loss on the answer given the instruction over
its loss on the answer alone. From 1 up the instruction does not help to foresee the answer; low
values mean that the answer follows from it. Both losses are means over the same tokens of the
answer, in nats, without the token that ends it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from selfinstruct.core.errors import UserError
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.scores.models import Loaded, load
from selfinstruct.steps.training.format import Example, StudentFormat
from selfinstruct.steps.training.measures import batch_logits
from selfinstruct.steps.training.measures import perplexity as of_loss

Task = Candidate | SeedTask

# Tokens that are computed at once, padding included: all of them, and those whose logits are held.
BATCH_TOKENS, BATCH_ANSWERS = 8192, 2048
CHUNK = 512  # tasks that are tokenized and sorted by length together
DIGITS = 6  # what is kept of a loss; past it, padding shows


class Likelihood:
    """Losses of one causal model on answers.

    Args:
        name: a model folder, a GGUF file, a shipped name or a Hub id.
        policy: whether the Hub may be asked.
        device: "auto", "cpu", "cuda" or "mps".
        max_length: tokens of prompt and answer; an answer is cut to fit, and a prompt that leaves
            no room has no loss.

    Raises `UserError` where there is no such model, or it is no causal one; `MissingDependency`.
    """

    def __init__(self, name: str, policy: Policy, *, device: str, max_length: int) -> None:
        self._loaded: Loaded = load(name, policy, device, "select.model")
        if self._loaded.encoder:
            raise UserError(f"select.model: {name}: is an encoder-decoder; give a causal model")
        self._form = StudentFormat(self._loaded.tokenizer, name)
        self._max_length = max_length
        self.identity = f"{self._loaded.identity}:{max_length}:{self._form.tag}"

    def losses(
        self, tasks: Sequence[Task], *, alone: bool
    ) -> Iterator[list[tuple[int, float | None]]]:
        """The loss on each answer, in batches of (position in `tasks`, nats a token).

        Args:
            tasks: the records.
            alone: leave the prompt out. The answer's tokens are the same in both cases.
        """
        for start in range(0, len(tasks), CHUNK):
            examples = self._examples(tasks[start : start + CHUNK], alone=alone)
            found = {start + at: example for at, example in enumerate(examples)}
            none = [(at, None) for at, example in found.items() if example is None]
            if none:
                yield list(none)
            whole = {at: example for at, example in found.items() if example is not None}
            for batch in _batches(whole):
                yield [
                    (at, round(loss, DIGITS))
                    for at, loss in zip(batch, self._batch([whole[n] for n in batch]), strict=True)
                ]

    def _examples(self, tasks: Sequence[Task], *, alone: bool) -> list[Example | None]:
        rows = [
            {"id": "", "instruction": t.instruction, "input": t.input, "output": t.output}
            for t in tasks
        ]
        return [self._cut(example, alone=alone) for example in self._form.tokenize(rows)]

    def _cut(self, example: Example, *, alone: bool) -> Example | None:
        answer = example.answer[: max(0, self._max_length - len(example.prompt))]
        if answer[-1:] == [self._form.stop_id]:
            answer = answer[:-1]
        if not answer:
            return None
        bos = self._form.tokenizer.bos_token_id
        before = [self._form.stop_id if bos is None else bos] if alone else example.prompt
        return Example(example.id, before, answer)

    def _batch(self, examples: list[Example]) -> list[float]:
        import torch

        with torch.inference_mode():
            logits, labels = batch_logits(
                self._loaded.model, examples, self._form.tokenizer.pad_token_id
            )
            each = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="none"
            )
            sums = each.view(labels.shape).sum(dim=1).tolist()
        return [total / len(e.answer) for total, e in zip(sums, examples, strict=True)]


def perplexity(given: float | None) -> float | None:
    """exp of the loss on the answer given its prompt."""
    return None if given is None else of_loss(given)


def ifd(given: float | None, alone: float | None) -> float | None:
    """The loss given the prompt over the loss alone; None where either is not there."""
    if given is None or alone is None or alone <= 0 or not math.isfinite(given / alone):
        return None
    return given / alone


def _batches(examples: dict[int, Example]) -> Iterator[list[int]]:
    """Keys of examples of about the same length, within the limits on tokens."""
    batch: list[int] = []
    longest = answers = 0
    for at in sorted(examples, key=lambda n: (examples[n].length, n)):
        example: Any = examples[at]
        longest, answers = max(longest, example.length), max(answers, len(example.answer))
        size = len(batch) + 1
        if batch and (size * longest > BATCH_TOKENS or size * answers > BATCH_ANSWERS):
            yield batch
            batch, longest, answers = [], example.length, len(example.answer)
        batch.append(at)
    if batch:
        yield batch
