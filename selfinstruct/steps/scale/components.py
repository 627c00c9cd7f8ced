"""Connected components of a graph in dataframes, without all of it in memory.

Large-star and small-star steps (Kiveris et al., 2014, Connected Components in MapReduce and
Beyond) in turn: each step hangs neighbours on the least node that one of them knows of. When a pair
of steps changes nothing, every node hangs on the least node of its component. The number of pairs
of steps grows with the logarithm of the longest path.
"""

from __future__ import annotations

from typing import Any

from selfinstruct.steps.scale.runner import Stages


def components(stages: Stages, edges: Any) -> Any:
    """A dataframe of `u` and `v`: each node that is not the least of its component, and the least.

    Args:
        stages: where the steps are kept.
        edges: a dataframe of `u` and `v`, numbers, in any order and direction.
    """
    stars = stages.run("stars-0", _small_star(_large_star(edges)))
    for step in range(1, 1000):
        before = stars
        stars = stages.run(f"stars-{step}", _small_star(_large_star(before)))
        if not _changed(before, stars):
            return stars
    raise AssertionError("components do not settle")


def _changed(before: Any, after: Any) -> bool:
    """Whether two sets of edges differ: in their number, or by an edge of one alone."""

    def count(frame: Any) -> int:
        return int(frame.count_rows())

    if count(before) != count(after):
        return True
    return count(after.join(before, on=["u", "v"], how="anti")) > 0


def _large_star(edges: Any) -> Any:
    """Hang every larger neighbour of a node on the least of the node and its neighbours."""
    u, v = _col("u"), _col("v")
    both = edges.select(u, v).concat(edges.select(v.alias("u"), u.alias("v")))
    least = both.groupby("u").agg(v.min().alias("least"))
    joined = both.join(least, on="u").where(v > u)
    found = joined.select(v.alias("u"), _lesser(u, _col("least")).alias("v"))
    return found.where(u > v).distinct()


def _small_star(edges: Any) -> Any:
    """Hang a node and its smaller neighbours on the least of these; edges lead downwards."""
    u, v = _col("u"), _col("v")
    least = edges.groupby("u").agg(v.min().alias("least"))
    others = edges.join(least, on="u").select(v.alias("u"), _col("least").alias("v"))
    own = least.select(u, _col("least").alias("v"))
    return others.concat(own).where(u > v).distinct()


def _lesser(one: Any, other: Any) -> Any:
    from daft.functions import when

    return when(one < other, one).otherwise(other)


def _col(name: str) -> Any:
    from daft import col

    return col(name)
