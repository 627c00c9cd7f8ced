"""Connected components of a graph that no process holds in whole.

Large-star and small-star steps (Kiveris et al., 2014, Connected Components in MapReduce and
Beyond) in turn: each step hangs neighbours on the least node that one of them knows of. When a pair
of steps changes nothing, every node hangs on the least node of its component. The number of pairs
of steps grows with the logarithm of the longest path.

Edges lie in files of `plan.parts` parts, cut by `u`. A task takes a share of the parts: a graph is
small next to the texts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from selfinstruct.steps.scale.parts import columns, load, save
from selfinstruct.steps.scale.plan import Plan, said
from selfinstruct.steps.scale.runner import load_daft

if TYPE_CHECKING:
    from selfinstruct.steps.scale.workers import Workers

TASK_EDGES = 2_000_000


def components(workers: Workers, plan: Plan, edges: int) -> str:
    """The stage that holds `u` and `v`: each node but the least of its component, and the least.

    Args:
        edges: how many the stage `edges` holds; it has each both ways.
    """
    tasks = min(plan.parts, 1 + edges // TASK_EDGES)
    before = "edges"
    for step in range(1000):
        large, small = f"large-star-{step}", f"small-star-{step}"
        moved = workers.run(large, partial(_star, before, large, True, tasks), plan, tasks)
        moved += workers.run(small, partial(_star, large, small, False, tasks), plan, tasks)
        if not any(one["moved"] for one in moved):
            return large
        before = small
    raise AssertionError("components do not settle")


def _star(
    before: str, stage: str, large: bool, tasks: int, plan: Plan, task: int
) -> dict[str, int]:
    """One task of a step: the edges of the parts that are its share."""
    import numpy as np
    import pyarrow as pa

    share = list(range(task, plan.parts, tasks))
    edges = load_daft().from_arrow(load(plan.files(before), share)).distinct()
    stars, moved = (_large_star if large else _small_star)(edges)
    u, v = columns(stars.to_arrow(), "u", "v")
    if not large:  # the next step looks at a node's neighbours on both sides
        u, v = np.append(u, v), np.append(v, u)
    save(plan.file(stage, task), pa.table({"u": u, "v": v}), u % plan.parts, plan.parts)
    return said(edges=len(u), moved=moved.count_rows())


def _large_star(edges: Any) -> tuple[Any, Any]:
    """Hang every larger neighbour of a node on the least of the node and its neighbours.

    The edges, which lead downwards, and those that were hung elsewhere. `edges` has each both ways.
    """
    from daft.functions import when

    u, v, least = _col("u"), _col("v"), _col("least")
    by_node = edges.groupby("u").agg(v.min().alias("least"))
    larger = edges.join(by_node, on="u").where(v > u).collect()
    hung = larger.select(v.alias("u"), when(least < u, least).otherwise(u).alias("v"))
    return hung.distinct(), larger.where(least < u)


def _small_star(edges: Any) -> tuple[Any, Any]:
    """Hang a node and its smaller neighbours on the least of these; all edges lead downwards."""
    u, v, least = _col("u"), _col("v"), _col("least")
    by_node = edges.groupby("u").agg(v.min().alias("least"))
    others = edges.join(by_node, on="u").where(v != least).collect()
    hung = others.select(v.alias("u"), least.alias("v"))
    return hung.concat(by_node.select(u, least.alias("v"))).distinct(), others


def _col(name: str) -> Any:
    from daft import col

    return col(name)
