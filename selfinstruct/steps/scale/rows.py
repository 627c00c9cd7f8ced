"""The last stages: which rows go, and every shard written without them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfinstruct.core.types import Verdict
from selfinstruct.steps.filters.minhash import NEAR_DUPLICATE
from selfinstruct.steps.rows.chunks import Chunk
from selfinstruct.steps.rows.parquet_sink import Parquet
from selfinstruct.steps.rows.sieve import said_of
from selfinstruct.steps.scale.parts import columns, load, save
from selfinstruct.steps.scale.plan import Plan, said
from selfinstruct.steps.scale.shards import Shard, batches_of, place_of


def find_gone(stars: str, plan: Plan, part: int) -> dict[str, int]:
    """Of the texts of a part, the rows that go: `row`, and `first`, which stays; cut by group.

    Args:
        stars: the stage that `components` returned.
    """
    import numpy as np
    import pyarrow as pa

    u, v = columns(load(plan.files(stars), [part]), "u", "v")
    order = np.argsort(u)
    u, v = u[order], v[order]
    row, node = columns(load([plan.file("copies", part)]), "row", "node")
    if len(u):
        at = np.minimum(np.searchsorted(u, node), len(u) - 1)
        node = np.where(u[at] == node, v[at], node)
    rows, firsts = np.append(u // plan.parts, row), np.append(v, node) // plan.parts
    table = pa.table({"row": rows, "first": firsts})
    save(plan.file("gone", part), table, plan.group_of(rows), len(plan.groups))
    return said(rows=len(rows))


def write_rows(plan: Plan, number: int) -> dict[str, int]:
    """Write the shards of a group: kept rows to `data`, others to `rejected`, of the folder `out`.

    How many rows went for which reason.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    gone = load(plan.files("gone"), [number])
    first_of = dict(zip(*(one.tolist() for one in columns(gone, "row", "first")), strict=True))
    why = {row: (first, "") for row, first in first_of.items()}
    settled = load([plan.file("settled", number)])
    cells = (settled[name].to_pylist() for name in ("row", "first", "fault"))
    for row, first, fault in zip(*cells, strict=True):
        why[row] = (first if fault else first_of.get(first, first), fault)
    paths = dict.fromkeys(shard.path for group in plan.groups for shard in group)
    schema = pa.unify_schemas(
        [pq.read_schema(path) for path in paths], promote_options="permissive"
    )
    count = sum(len(group) for group in plan.groups)
    for shard in plan.groups[number]:
        part = f"train-{shard.number:05d}-of-{count:05d}.parquet"
        rows = range(shard.first, shard.first + shard.rows)
        here = {row: why[row] for row in rows if row in why}
        write_shard(shard, schema, here, plan.names, plan.out, part)
    return Counter(fault.partition("\t")[0] or NEAR_DUPLICATE for _, fault in why.values())


def write_shard(
    shard: Shard,
    schema: Any,
    rejected: Mapping[int, tuple[int, str]],
    names: Sequence[str],
    out: Path,
    part: str,
) -> None:
    """Write the shard's rows to a file of `data`, and those of `rejected` to one of its own.

    `rejected` maps a row's number to the row that stays in its place, and to its fault. A file
    without rows is not written.
    """
    with _Part(out / "data" / part, schema) as kept, _Part(out / "rejected" / part, schema) as gone:
        row = shard.first
        for batch in batches_of(shard):
            chunk = Chunk([], batch)
            numbers = range(row, row + batch.num_rows)
            row += batch.num_rows
            stays = [at for at, number in enumerate(numbers) if number not in rejected]
            goes = [at for at, number in enumerate(numbers) if number in rejected]
            if stays:
                kept.sink().write(chunk, stays, None)
            if goes:
                added = [_said(numbers[at], rejected[numbers[at]], names) for at in goes]
                gone.sink().write(chunk, goes, added)


def _said(row: int, why: tuple[int, str], names: Sequence[str]) -> dict[str, Any]:
    first, faulty = why
    place = place_of(row, names)
    if faulty:
        reason, _, detail = faulty.partition("\t")
        return said_of(Verdict(candidate_id=place, reason=reason, detail=detail))
    neighbour = place_of(first, names)
    detail = f"{neighbour} is the first of those that it is near to, or near to through others"
    return said_of(
        Verdict(candidate_id=place, reason=NEAR_DUPLICATE, detail=detail, neighbour=neighbour)
    )


class _Part:
    """A Parquet file that is made when there is something to write, and appears at the end."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._path, self._schema = path, schema
        self._part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        self._sink: Parquet | None = None

    def sink(self) -> Parquet:
        if self._sink is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = Parquet(self._part, self._schema)
        return self._sink

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._sink is None:
            return
        self._sink.abort()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
