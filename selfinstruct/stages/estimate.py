"""Estimate: what a run will take, low, expected and high, before it is spent.

Either from the seeds alone, with real requests drawn and counted and everything else assumed
(`steps/data/yields.yaml`), or from the slots that a run has judged so far: a pilot.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date

import msgspec

from selfinstruct.core.errors import NoProgress, RecipeError
from selfinstruct.core.money import from_dollars, show
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.sections.teacher import TeacherConfig
from selfinstruct.core.types import Passage, Sampling, SeedTask
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.pilot import by_strategy, judged_slots, taken
from selfinstruct.engine.routes import is_local, rate_of
from selfinstruct.steps.costs.forecast import (
    Amounts,
    StrategyLine,
    interval,
    measured_fall,
    per_record,
    strategy_line,
    stretch,
)
from selfinstruct.steps.costs.pricing import Rate, price_warnings
from selfinstruct.steps.costs.reply_sizes import reply_sizes
from selfinstruct.steps.costs.slot_profile import SlotProfile
from selfinstruct.steps.costs.yields import Assumptions, TeacherClass, assumptions
from selfinstruct.steps.documents.shelf import Shelf
from selfinstruct.steps.strategies.build import make_strategy

LOW, EXPECTED, HIGH = range(3)
CASES = ("low", "expected", "high")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One of the three estimates, for the whole run; money in picodollars.

    `seconds` is None where nothing is known of the teacher's speed.
    """

    cost: int
    cost_per_record: int
    requests: int
    tokens_in: int
    tokens_out: int
    slots: int
    seconds: float | None


class PriceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A teacher and the price it is counted with; dollars per million tokens."""

    teacher: str
    model: str
    input: float
    output: float
    checked: str | None
    source: str


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a run will take until it has `target` records, what it has taken already included."""

    run: str
    basis: str
    target: int
    kept: int
    spent: int
    low: Case
    expected: Case
    high: Case
    strategies: list[StrategyLine]
    prices: list[PriceLine]
    notes: list[str]
    warnings: list[str]


def estimate_from_seeds(
    recipe: Recipe,
    seeds: Sequence[SeedTask],
    today: date,
    shelf: Shelf | None = None,
) -> Estimate:
    """What `recipe` will take, by its seeds and what is assumed of its teacher. Calls nobody.

    `shelf` has the passages of its documents.

    Raises `RecipeError` for a model without a price, a prompt file that cannot be used, or room
    for no whole task in a reply.
    """
    known = assumptions()
    kind = class_of(recipe.need_teacher())
    passages = shelf.passages if shelf else []
    lines, each = _by_strategy(recipe, seeds, passages, known, kind)
    start = len(seeds)
    cases = []
    for case in range(3):
        factor = stretch(start, start + recipe.generate.target, known.pool, known.fall[case])
        total = each[case] * (recipe.generate.target * factor)
        cases.append(_case(recipe, Amounts(), total, known.classes[kind].speed is not None))
    notes = [
        f"assumed of {known.classes[kind].described} ({known.checked}): "
        f"{' '.join(known.classes[kind].source.split())}",
        "measure instead of assuming: selfinstruct estimate RECIPE --pilot 40 (its records count "
        "toward the run)",
        *([shelf.in_short()] if shelf and shelf.documents else []),
    ]
    basis = " and ".join(
        part for part, found in (("the seeds", seeds), ("the documents", passages)) if found
    )
    return _estimate(recipe, today, basis, 0, 0, cases, lines, notes)


def estimate_from_run(folder: RunFolder, recipe: Recipe, today: date) -> Estimate:
    """What `recipe` will take, by the slots that the run in `folder` has judged.

    Raises `NoProgress` where nothing was judged or kept.
    """
    known = assumptions()
    with Ledger.read(folder.db_path) as ledger:
        slots = judged_slots(ledger)
        lines = by_strategy(ledger)
        already = taken(ledger)
        seeds = len(ledger.seeds())
        documents = ledger.meta("documents")
    kept = sum(slot.kept for slot in slots)
    if not kept:
        raise NoProgress(
            f"the pilot's {len(slots)} slots kept nothing, so nothing can be estimated; "
            "`selfinstruct status` shows why they were rejected"
        )
    target = recipe.generate.target
    mean = per_record(slots)
    best, worst = interval(slots, ahead=max(0, target - kept) * mean.slots)
    each = (best, mean, worst)
    falls = (*known.fall[:HIGH], max(known.fall[HIGH], measured_fall(slots, seeds)))
    cases = []
    for case in range(3):
        factor = stretch(seeds + kept, seeds + target, seeds + kept, falls[case])
        rest = each[case] * (max(0, target - kept) * factor)
        cases.append(_case(recipe, already, rest, timed=True))
    notes = [
        f"measured on {len(slots)} slots that kept {kept} records; low and high are the 5th and "
        "95th percentile by bootstrap over slots",
        f"the high case loses {falls[HIGH]:.0%} of the yield with each doubling of the pool, the "
        f"expected one {falls[EXPECTED]:.0%}",
        *([documents] if documents else []),
    ]
    basis = f"a pilot of {len(slots)} slots"
    cost = int(already.cost)
    return _estimate(recipe, today, basis, kept, cost, cases, lines, notes)


def class_of(teacher: TeacherConfig) -> TeacherClass:
    """Which assumptions hold for a teacher."""
    if teacher.kind == "local":
        return "small"
    return "own" if is_local(teacher) else "hosted"


# -- from the seeds ---------------------------------------------------------------------------


def _by_strategy(
    recipe: Recipe,
    seeds: Sequence[SeedTask],
    passages: Sequence[Passage],
    known: Assumptions,
    kind: TeacherClass,
) -> tuple[list[StrategyLine], tuple[Amounts, Amounts, Amounts]]:
    """A line for each strategy, and what a kept record takes in the three cases."""
    configs = recipe.generate.strategies
    whole = sum(config.weight for config in configs)
    totals, kept = [Amounts() for _ in CASES], [0.0 for _ in CASES]
    lines = []
    for number, config in enumerate(configs):
        profile = _profile(recipe, config, seeds, passages, known, kind, number)
        share = config.weight / whole
        for case in range(3):
            slot, records = profile.slot(case)
            totals[case] = totals[case] + slot * share
            kept[case] += records * share
        slot, records = profile.slot(EXPECTED)
        lines.append(strategy_line(config.kind, share, slot, records))
    if not kept[HIGH]:
        raise RecipeError(
            f"teacher.max_tokens={recipe.need_teacher().max_tokens} leaves no room for a whole "
            "task like the seeds; raise it"
        )
    low, expected, high = (totals[case] * (1 / kept[case]) for case in range(3))
    return lines, (low, expected, high)


def _profile(
    recipe: Recipe,
    config: StrategyConfig,
    seeds: Sequence[SeedTask],
    passages: Sequence[Passage],
    known: Assumptions,
    kind: TeacherClass,
    number: int,
) -> SlotProfile:
    """The profile of one of the recipe's strategies."""
    teacher = recipe.need_teacher()
    sampling = Sampling(max_tokens=teacher.max_tokens, temperature=teacher.temperature)
    assumed = known.classes[kind].strategies[config.kind]
    return SlotProfile(
        make_strategy(config, sampling, known.user_header),
        seeds,
        passages,
        reply_sizes(config, seeds, assumed, known.task),
        most=config.max_tokens or teacher.max_tokens,
        writer=_priced(recipe, teacher),
        answerer=_priced(recipe, recipe.answer_teacher or teacher),
        known=known,
        kind=kind,
        rng=random.Random(f"estimate/{number}"),
    )


# -- the whole ----------------------------------------------------------------------------------


def _case(recipe: Recipe, already: Amounts, rest: Amounts, timed: bool) -> Case:
    total = already + rest
    return Case(
        cost=round(total.cost),
        cost_per_record=round(total.cost / recipe.generate.target),
        requests=round(total.requests),
        tokens_in=round(total.tokens_in),
        tokens_out=round(total.tokens_out),
        slots=round(total.slots),
        seconds=_seconds(recipe.need_teacher(), rest) if timed else None,
    )


def _seconds(teacher: TeacherConfig, rest: Amounts) -> float:
    """How long the calls take: by their own time, or by the provider's limits where those bind."""
    longest = rest.busy_s / teacher.concurrency
    for limit, amount in (
        (teacher.requests_per_minute, rest.requests),
        (teacher.tokens_per_minute, rest.tokens_in + rest.tokens_out),
    ):
        if limit:
            longest = max(longest, 60 * amount / limit)
    return longest


def _priced(recipe: Recipe, teacher: TeacherConfig) -> Rate:
    overrides = {name: price.model_dump() for name, price in recipe.prices.items()}
    rate = rate_of(teacher, overrides, recipe.generate.no_price)
    thinks = rate.reasoning and teacher.extra.get("reasoning_effort") != "none"
    return msgspec.structs.replace(rate, reasoning=thinks)


def _estimate(
    recipe: Recipe,
    today: date,
    basis: str,
    kept: int,
    paid: int,
    cases: list[Case],
    lines: list[StrategyLine],
    notes: list[str],
) -> Estimate:
    prices, warnings = _prices(recipe, today)
    cap = recipe.generate.max_cost
    if cap is not None and cases[EXPECTED].cost > from_dollars(cap):
        warnings.append(
            f"generate.max_cost is {show(from_dollars(cap))}, and {show(cases[EXPECTED].cost)} are "
            "expected: the run would stop there, and continue with a larger one"
        )
    limit = recipe.generate.max_requests
    if limit is not None and cases[EXPECTED].slots > limit:
        warnings.append(
            f"generate.max_requests is {limit:,}, and {cases[EXPECTED].slots:,} slots are expected"
        )
    return Estimate(
        run=recipe.name,
        basis=basis,
        target=recipe.generate.target,
        kept=kept,
        spent=paid,
        low=cases[LOW],
        expected=cases[EXPECTED],
        high=cases[HIGH],
        strategies=lines,
        prices=prices,
        notes=notes,
        warnings=warnings,
    )


def _prices(recipe: Recipe, today: date) -> tuple[list[PriceLine], list[str]]:
    """The teachers' prices, and what there is to be said against them."""
    lines, warnings = [], []
    for teacher in filter(None, (recipe.teacher, recipe.answer_teacher)):
        rate = _priced(recipe, teacher)
        free = not (rate.input or rate.output)
        own = teacher.model in recipe.prices
        source = "the recipe" if own else rate.source
        if free and not own:
            source = "no price: tokens only"
            source = "on this machine" if is_local(teacher) else source
        lines.append(
            PriceLine(
                teacher=teacher.kind,
                model=teacher.model,
                input=rate.input / 10**6,
                output=rate.output / 10**6,
                checked=str(rate.checked) if rate.checked else None,
                source=source,
            )
        )
        warnings += price_warnings(teacher.model, rate, today)
        if rate.reasoning:
            warnings.append(
                f"{teacher.model} thinks before it answers, which is billed as output; how much, "
                "only a pilot tells"
            )
    return lines, warnings
