"""Measures of a model on records: loss on the answers, greedy answers and their ROUGE-L."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from selfinstruct.steps.filters.rouge import rouge_l
from selfinstruct.steps.training.format import Example
from selfinstruct.steps.words import alpaca_words

OnBatch = Callable[[int, int], None]
# Logits held at once: with their copies in float32, about 1.3 GB.
LOGITS = 1 << 27


def mean_loss(
    model: Any,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_size: int = 8,
    on_batch: OnBatch | None = None,
) -> float:
    """Mean negative log-likelihood in nats per answer token, over all answer tokens alike.

    For a causal model rows are padded on the left, so that the answers end together and the head, a
    good part of a small model's work, runs on them alone.
    """
    import torch

    ordered = sorted(examples, key=lambda example: example.length)
    batches = _batches(ordered, batch_size, LOGITS // _vocabulary(model))
    total, tokens = 0.0, 0
    # Not inference mode: of a model that processes split, it leaves weights gathered that no
    # training step can use afterwards.
    with torch.no_grad():
        for number, batch in enumerate(batches, 1):
            logits, labels = batch_logits(model, batch, pad_id)
            total += float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1).float(),
                    labels.flatten(),
                    ignore_index=-100,
                    reduction="sum",
                )
            )
            tokens += sum(example.learned for example in batch)
            if on_batch is not None:
                on_batch(number, len(batches))
    return total / tokens


def _vocabulary(model: Any) -> int:
    config = getattr(model, "config", None)
    return 1 if config is None else int(config.get_text_config().vocab_size)


def _batches(examples: Sequence[Example], size: int, positions: int) -> list[list[Example]]:
    """Batches of at most `size` examples, in their order, which have logits at so many `positions`.

    Rows are padded to the longest answer. A GPU that trains may have no room for more.
    """
    batches: list[list[Example]] = []
    longest = 0
    for example in examples:
        longest = max(longest, len(example.answer))
        if batches and len(batches[-1]) < size and (len(batches[-1]) + 1) * longest <= positions:
            batches[-1].append(example)
        else:
            batches.append([example])
            longest = len(example.answer)
    return batches


def perplexity(loss: float) -> float:
    """exp of a mean loss, as large as a float can be where the loss is absurd."""
    return math.exp(min(loss, 700.0))


def batch_logits(model: Any, batch: Sequence[Example], pad_id: int) -> tuple[Any, Any]:
    """Logits over the answers, (rows, longest answer, vocabulary), and the labels they predict.

    Labels are -100 where nothing is learned.
    """
    import torch

    device = next(model.parameters()).device
    if _has_encoder(model):
        ids, mask = left_padded([example.prompt for example in batch], pad_id)
        answers = max(len(example.answer) for example in batch)
        labels = torch.full((len(batch), answers), -100)
        for row, example in enumerate(batch):
            labels[row, : len(example.answer)] = torch.tensor(example.labels)
        labels = labels.to(device)
        out = model(input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels)
        return out.logits, labels
    answers = max(len(example.answer) for example in batch)
    ids, mask = left_padded([example.prompt + example.answer for example in batch], pad_id)
    labels = torch.full((len(batch), answers), -100)
    for row, example in enumerate(batch):
        labels[row, answers - len(example.answer) :] = torch.tensor(example.labels)
    inputs = {"input_ids": ids, "attention_mask": mask}
    extra = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0), "logits_to_keep": answers + 1}
    known = _arguments_of(model)
    inputs |= {name: value for name, value in extra.items() if name in known}
    logits = model(
        **{n: v.to(device) if hasattr(v, "to") else v for n, v in inputs.items()}, use_cache=False
    ).logits
    # The logits before a token are what predicts it.
    return logits[:, -answers - 1 : -1], labels.to(device)


def _has_encoder(model: Any) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _arguments_of(model: Any) -> set[str]:
    """The names the model's own forward takes; an adapter's wrapper takes anything."""
    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(type(own).forward).parameters)


def left_padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Any, Any]:
    """`rows` as a matrix of ids padded on the left, and its attention mask."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    return ids, mask


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
) -> list[list[int]]:
    """The most likely continuation of each prompt, cut before the first of `stop_ids`."""
    import torch
    from transformers import GenerationConfig

    if not prompts:
        return []
    ids, mask = left_padded(prompts, pad_id)
    device = next(model.parameters()).device
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
    )
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
        )
    stops = set(stop_ids)
    # An encoder-decoder gives its answer alone, after the token that every answer starts with.
    start = 1 if _has_encoder(model) else ids.shape[1]
    return [_before(row, stops) for row in out[:, start:].tolist()]


def _before(ids: list[int], stops: set[int]) -> list[int]:
    end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def mean_rouge_l(references: Sequence[str], texts: Sequence[str]) -> float | None:
    """Mean ROUGE-L F1 with rouge_score's words (a-z and 0-9); None where there is nothing."""
    scores = [
        rouge_l(alpaca_words(reference), alpaca_words(text))
        for reference, text in zip(references, texts, strict=True)
    ]
    return sum(scores) / len(scores) if scores else None


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices, evenly spread over range(count)."""
    if wanted >= count:
        return list(range(count))
    return [at * count // wanted for at in range(wanted)]
