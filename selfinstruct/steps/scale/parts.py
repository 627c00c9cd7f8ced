"""What a task hands to the tasks of the next stage: one Arrow file, cut into parts by a key.

A file has a record batch for each part, in order, so that a task of the next stage reads its part
of each file and nothing else. A file appears whole: what is under its name can be read.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def save(path: Path, table: Any, part: npt.NDArray[np.integer[Any]] | None, parts: int) -> None:
    """Write `table` cut into `parts` record batches.

    Args:
        part: the number of each row's part; None where there is only one.
    """
    import numpy as np
    import pyarrow as pa

    table = table.combine_chunks()
    ends = [0, table.num_rows]
    if part is not None:
        small = part.astype(np.uint16)  # which NumPy sorts by radix
        table = table.take(pa.array(np.argsort(small, kind="stable"))).combine_chunks()
        ends = [0, *np.bincount(small, minlength=parts).cumsum().tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another attempt at the same task may be writing too.
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    empty = pa.RecordBatch.from_pylist([], schema=table.schema)
    with (
        pa.OSFile(str(beside), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=options) as writer,
    ):
        for start, end in itertools.pairwise(ends):
            batches = table.slice(start, end - start).to_batches()
            writer.write_batch(batches[0] if batches else empty)
    beside.replace(path)


def load(paths: Iterable[Path], parts: Sequence[int] = (0,)) -> Any:
    """The rows of some parts of files that were cut alike, as one table."""
    import pyarrow as pa

    batches = []
    for path in paths:
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            batches += [file.get_batch(part) for part in parts]
    return pa.Table.from_batches(batches)


def columns(table: Any, *names: str) -> list[npt.NDArray[Any]]:
    """Columns without nulls as NumPy arrays."""
    return [table.column(name).to_numpy() for name in names]
