"""Embedders by name: the one that ships, or a sentence-transformers model on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct.core.errors import UserError
from selfinstruct.steps.embedding.minilm import MAX_TOKENS, NAME, MiniLM, readable
from selfinstruct.steps.embedding.vectors import MAX_DIMENSIONS, quantized
from selfinstruct.steps.privacy import Policy

if TYPE_CHECKING:
    from selfinstruct.steps.embedding.vectors import Embedder, Int8

BATCH = 32


def build_embedder(name: str, policy: Policy, key: str) -> Embedder:
    """The embedder called `name`: "minilm", a sentence-transformers folder, or a Hub id.

    Args:
        name: what the recipe says.
        policy: whether the Hub may be asked.
        key: the recipe's key, for messages.

    Raises `UserError` where there is no such model, or it is not one that embeds;
    `MissingDependency`.
    """
    return MiniLM() if name == NAME else SentenceModel(name, policy, key)


class SentenceModel:
    """Embeds texts with an encoder in the layout of sentence-transformers, through transformers.

    Of the steps after the encoder, pooling (the mean of all tokens, or the first one) is done, and
    normalizing, which a cosine does anyway; a model that wants another one is refused.
    """

    def __init__(self, name: str, policy: Policy, key: str) -> None:
        from selfinstruct.steps.scores.models import load

        loaded = load(name, policy, "cpu", key, task="embed")
        self.name = name
        self.identity = loaded.identity
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._first = _pools_first(loaded.folder, name, key)
        if self._model.config.hidden_size > MAX_DIMENSIONS:
            raise UserError(
                f"{key}: {name}: has {self._model.config.hidden_size} dimensions; at most "
                f"{MAX_DIMENSIONS} can be compared exactly"
            )

    def embed(self, texts: Sequence[str]) -> Int8:
        """One row a text, in units of 1/127 of the unit vector."""
        import numpy as np
        import torch

        found = np.zeros((len(texts), self._model.config.hidden_size), np.int8)
        order = sorted(range(len(texts)), key=lambda at: (len(texts[at]), at))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            inputs = self._tokenizer(
                [readable(texts[at]) for at in batch],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = self._model(**inputs).last_hidden_state
            found[batch] = quantized(self._pooled(hidden, inputs["attention_mask"]).numpy())
        return found

    def _pooled(self, hidden: Any, mask: Any) -> Any:
        if self._first:
            return hidden[:, 0]
        weights = mask[..., None]
        return (hidden * weights).sum(1) / weights.sum(1)


def _pools_first(folder: Path, name: str, key: str) -> bool:
    """Whether the model's vector is that of its first token; False for the mean of all.

    Raises `UserError` for any other kind, and for steps that are not pooling or normalizing.
    """
    modules = folder / "modules.json"
    if modules.is_file():
        kinds = [str(step["type"]).rpartition(".")[2] for step in json.loads(modules.read_text())]
        if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
            raise UserError(f"{key}: {name}: has a step that is not known here: {unknown.pop()}")
    pooling = folder / "1_Pooling" / "config.json"
    if not pooling.is_file():
        return False
    said = json.loads(pooling.read_text())
    modes = [mode for mode, on in said.items() if mode.startswith("pooling_mode_") and on]
    if modes == ["pooling_mode_cls_token"]:
        return True
    if modes != ["pooling_mode_mean_tokens"]:
        raise UserError(
            f"{key}: {name}: pools by {', '.join(modes) or 'nothing'}, which is not known"
        )
    return False
