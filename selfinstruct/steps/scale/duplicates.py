"""Near-duplicates as a job of stages: texts, bands, pairs, exact similarity, components, rows.

The measure is that of `filters.minhash`: the exact Jaccard similarity of the word n-grams of
instruction, input and output. The rule differs: there, a row is compared with the rows kept before
it; here all rows that are connected by similar pairs are one component, of which the first stays.
A row that is near a row that goes also goes, though it may not be near the first.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from selfinstruct.steps.scale.bands import FIRST, pair_bands, pair_long_bands, save_long_bands
from selfinstruct.steps.scale.components import components
from selfinstruct.steps.scale.plan import Plan
from selfinstruct.steps.scale.rows import find_gone, write_rows
from selfinstruct.steps.scale.similar import measure, send_texts
from selfinstruct.steps.scale.texts import find_distinct, read_texts
from selfinstruct.steps.scale.workers import Workers


def drop_duplicates(workers: Workers, plan: Plan) -> Counter[str]:
    """Do the job of `plan`; how many rows went for which reason.

    Raises `RecipeError` for a threshold that the bands do not reach.
    """
    FIRST.shape(plan.threshold)
    workers.run("texts", read_texts, plan, len(plan.groups))
    workers.run("distinct", find_distinct, plan, plan.parts)
    found = workers.run("pairs", pair_bands, plan, plan.parts)
    if any(one["crowded"] for one in found):
        workers.run("long-bands", save_long_bands, plan, plan.parts)
        workers.run("long-pairs", pair_long_bands, plan, plan.parts)
    workers.run("sent", send_texts, plan, plan.parts)
    edges = sum(one["edges"] for one in workers.run("edges", measure, plan, plan.parts))
    stars = components(workers, plan, edges)
    workers.run("gone", partial(find_gone, stars), plan, plan.parts)
    rejected: Counter[str] = Counter()
    for counts in workers.run("rows", write_rows, plan, len(plan.groups)):
        rejected.update(counts)
    return rejected
