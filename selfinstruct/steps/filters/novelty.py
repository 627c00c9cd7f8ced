"""Novelty: reject what is near a seed or a kept record by ROUGE-L.

The rule of Self-Instruct (Wang et al., 2022) and Stanford Alpaca: a candidate whose F1 with
anything in the pool is above the threshold is dropped, at exactly the threshold it is kept. What is
dropped blocks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from selfinstruct.core.types import Candidate, SeedTask, Verdict, task_text
from selfinstruct.steps.filters.rouge import show
from selfinstruct.steps.words import TOKENIZERS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from selfinstruct.steps.filters.rouge_index import Near

NOT_NOVEL = "not_novel"
REASONS = {NOT_NOVEL: "its words are too close to those of a seed or a kept record (ROUGE-L)"}

MAX_CHARACTERS = 100_000  # of a text that are compared; `rouge_index` also limits its words
ROWS_AT_ONCE = 8192  # texts that `novel_mask` holds as words

Field = Literal["instruction", "instruction+input"]
TokenizerName = Literal["unicode", "alpaca"]


def compared_text(item: Candidate | SeedTask, field: Field) -> str:
    """The text of `item` that novelty is about, cut at `MAX_CHARACTERS`."""
    text = task_text(item) if field == "instruction+input" else item.instruction
    return text[:MAX_CHARACTERS]


class Novelty:
    """Rejects a candidate whose ROUGE-L F1 with anything added is above `threshold`.

    Args:
        threshold: 0 < threshold <= 1; 1 rejects nothing.
        field: what is compared.
        tokenizer: a name in `words.TOKENIZERS`. A text without words is near nothing.
    """

    name = "novelty"

    def __init__(
        self,
        threshold: float = 0.7,
        field: Field = "instruction",
        tokenizer: TokenizerName = "unicode",
    ) -> None:
        # Here, as naming the reasons must not cost the import of numpy.
        from selfinstruct.steps.filters.index_pool import IndexPool
        from selfinstruct.steps.filters.rouge_index import RougeIndex

        self._threshold = threshold
        self._field = field
        self._tokenizer = TOKENIZERS[tokenizer]
        self._pool = IndexPool(RougeIndex(threshold), "rouge", threshold)
        self._item_ids: list[str] = []
        self._last: tuple[str, list[str]] = ("", [])

    def check(self, candidate: Candidate) -> Verdict | None:
        """A verdict that names the nearest neighbour, the earliest of equals, and its F1."""
        near = self._pool.nearest(self._words(candidate))
        if near is None:
            return None
        neighbour = self._item_ids[near.position]
        return Verdict(
            candidate_id=candidate.id,
            reason=NOT_NOVEL,
            detail=f"ROUGE-L {show(near.score, self._threshold)} with {neighbour}, "
            f"over {self._threshold:g}",
            neighbour=neighbour,
            score=near.score,
        )

    def add(self, item: Candidate | SeedTask) -> None:
        """Remember a seed task or a kept candidate."""
        self._pool.add(self._words(item))
        self._item_ids.append(item.id)

    def _words(self, item: Candidate | SeedTask) -> list[str]:
        """The words compared; those of the last text are kept, as `add` often follows `check`."""
        text = compared_text(item, self._field)
        if text != self._last[0]:
            self._last = (text, self._tokenizer(text))
        return self._last[1]


class Decisions(NamedTuple):
    """What `novel_mask` or `near_mask` decided, one entry a text in the order they came.

    `neighbour` is the position of the nearest kept text before it, the earliest of equals, and
    `score` how near it is; -1 and 0 for texts that were kept.
    """

    kept: npt.NDArray[np.bool_]
    neighbour: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]


def novel_mask(
    texts: Iterable[str], threshold: float = 0.7, tokenizer: TokenizerName = "unicode"
) -> Decisions:
    """Decide on texts one after the other, each against those kept before it.

    Args:
        texts: read once, so they may come from a stream; `MAX_CHARACTERS` of each are compared.
        threshold: the F1 above which a text is dropped, 0 < threshold <= 1.
        tokenizer: a name in `words.TOKENIZERS`.
    """
    from selfinstruct.steps.filters.index_pool import IndexPool
    from selfinstruct.steps.filters.rouge_index import RougeIndex

    pool, words = IndexPool(RougeIndex(threshold), "rouge", threshold), TOKENIZERS[tokenizer]
    coming = iter(texts)
    rows = iter(lambda: [words(text[:MAX_CHARACTERS]) for text in islice(coming, ROWS_AT_ONCE)], [])
    return decided(pool.decide(some) for some in rows)


def decided(parts: Iterable[Sequence[Near | None]]) -> Decisions:
    """The decisions of an index on parts of a list, by the places of kept texts in that list."""
    import numpy as np

    kept: list[int] = []
    neighbours: list[int] = []
    scores: list[float] = []
    for near in chain.from_iterable(parts):
        if near is None:
            kept.append(len(neighbours))
        neighbours.append(-1 if near is None else kept[near.position])
        scores.append(0.0 if near is None else near.score)
    neighbour = np.array(neighbours, np.int64)
    return Decisions(neighbour < 0, neighbour, np.array(scores, np.float64))
