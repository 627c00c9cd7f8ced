"""Vectors of texts in int8, and similarities that are the same on every machine.

A dot product of two rows of int8 is a whole number below 2**24 up to a thousand dimensions, which
float32 holds exactly: it is the same in whatever order a library adds it up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    Int8 = npt.NDArray[np.int8]
    Floats = npt.NDArray[np.float32]

SCALE = 127
MAX_DIMENSIONS = 1040  # past it, a dot product may not fit the 24 bits of a float32's fraction
BLOCK = 256  # rows compared with many others at once
ROUNDING = 2.0**-20  # more than what float32 loses of a quotient, in relation to it


class Embedder(Protocol):
    """Texts to vectors. `identity` changes whenever the vectors do."""

    name: str
    identity: str

    def embed(self, texts: Sequence[str]) -> Int8:
        """One row a text; a text's row does not depend on the other texts."""
        ...


def quantized(rows: Any) -> Int8:
    """Rows of floats, scaled to length 1 and rounded to steps of 1/127."""
    import numpy as np

    lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1, keepdims=True))
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    found: Int8 = np.rint(unit * SCALE).astype(np.int8)
    return found


def cosine(one: Int8, other: Int8) -> float:
    """The cosine of two vectors, from whole numbers."""
    import numpy as np

    a, b = one.astype(np.int64), other.astype(np.int64)
    lengths = math.sqrt(int(a @ a)) * math.sqrt(int(b @ b))
    return int(a @ b) / lengths if lengths else 0.0


class Vectors:
    """The vectors of a list of texts, to be compared by cosine.

    Args:
        matrix: one row a text.
    """

    def __init__(self, matrix: Int8) -> None:
        import numpy as np

        if matrix.shape[1] > MAX_DIMENSIONS:
            raise ValueError(f"vectors of more than {MAX_DIMENSIONS} dimensions")
        self.rows: Floats = matrix.astype(np.float32)
        squares = np.square(self.rows, dtype=np.float64).sum(axis=1)
        self.lengths: Any = np.sqrt(np.maximum(squares, 1.0))

    def __len__(self) -> int:
        return len(self.rows)

    def similarities(self, at: int) -> Any:
        """Cosine of the row `at` with every row, as float64."""
        return self.similarities_with(self, at)

    def similarities_with(self, other: Vectors, at: int) -> Any:
        """Cosine of the row `at` of `other` with every row, as float64."""
        return (self.rows @ other.rows[at]) / (self.lengths * other.lengths[at])

    def part(self, positions: Any) -> Vectors:
        """The rows at `positions`, as vectors of their own."""
        return Vectors(self.rows[positions])

    def nearest(self, positions: Sequence[int]) -> Any:
        """Each row's highest cosine with a row of `positions`; -2 where there are none."""
        import numpy as np

        found = np.full(len(self), -2.0)
        for start in range(0, len(positions), BLOCK):
            some = list(positions[start : start + BLOCK])
            others, lengths = self.rows[some].T.copy(), self.lengths[some]
            for first in range(0, len(self), BLOCK):
                rows = slice(first, first + BLOCK)
                similar = (self.rows[rows] @ others) / (self.lengths[rows, None] * lengths)
                np.maximum(found[rows], similar.max(axis=1), out=found[rows])
        return found

    def middle(self) -> int:
        """The row nearest to the mean of all rows, the first of equals."""
        import numpy as np

        sums = self.rows.sum(axis=0, dtype=np.float64)
        dots = [
            self.rows[first : first + BLOCK].astype(np.float64) @ sums
            for first in range(0, len(self), BLOCK)
        ]
        return int(np.argmax(np.concatenate(dots) / self.lengths))

    def neighbours(self, most: int) -> Iterator[tuple[int, Any, Any]]:
        """For each row: its number, the `most` rows most similar to it, and how similar.

        The row itself is among them; of equals, the first are. In order of their numbers. Exact,
        in time quadratic in the number of rows.
        """
        import numpy as np

        most = min(most, len(self))
        parts = min(len(self), 8 * most)
        width = len(self) // max(1, parts)
        weights = (1 / self.lengths).astype(np.float32)
        for start in range(0, len(self), BLOCK):
            dots = self.rows[start : start + BLOCK] @ self.rows.T
            rough = dots * weights  # the order of cosines but for the rounding of float32
            # Of the highest of each part, at least `most` are as high as this one.
            highest = rough[:, : parts * width].reshape(-1, width, parts).max(axis=1)
            bound = np.partition(highest, parts - most, axis=1)[:, parts - most]
            bound -= np.abs(bound) * ROUNDING
            at, columns = np.nonzero(rough >= bound[:, None])
            ends = np.searchsorted(at, np.arange(len(dots) + 1))
            for row in range(len(dots)):
                some = columns[ends[row] : ends[row + 1]]
                found = dots[row, some] / (self.lengths[start + row] * self.lengths[some])
                best = np.sort(np.argsort(-found, kind="stable")[:most])
                yield start + row, some[best], found[best]


class Taken:
    """Rows of `vectors` that were taken so far, and how near the nearest of them is."""

    def __init__(self, vectors: Vectors, room: int) -> None:
        import numpy as np

        self._vectors = vectors
        self._rows = np.empty((max(1, room), vectors.rows.shape[1]), np.float32)
        self._lengths = np.empty(max(1, room))
        self._count = 0

    def nearest(self, at: int) -> float:
        """The highest cosine of the row `at` with a row taken; -1 where none is."""
        if not self._count:
            return -1.0
        dots = self._rows[: self._count] @ self._vectors.rows[at]
        return float((dots / self._lengths[: self._count]).max() / self._vectors.lengths[at])

    def add(self, at: int) -> None:
        """Take the row `at`."""
        self._rows[self._count] = self._vectors.rows[at]
        self._lengths[self._count] = self._vectors.lengths[at]
        self._count += 1
