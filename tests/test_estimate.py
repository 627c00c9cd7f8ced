"""Estimates: from the seeds without a call, from a pilot that is part of the run, and what of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.cli.main import cli
from selfinstruct.core.errors import CapReached, NoProgress, RecipeError
from selfinstruct.core.money import from_dollars
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.recipe_file import load_recipe
from selfinstruct.core.shipped import shipped_root
from selfinstruct.core.types import Message
from selfinstruct.stages.estimate import Estimate, estimate_from_run, estimate_from_seeds
from selfinstruct.stages.generate import gather_documents, gather_seeds
from selfinstruct.steps.costs.forecast import (
    Amounts,
    Slot,
    interval,
    measured_fall,
    per_record,
    stretch,
)
from selfinstruct.steps.costs.token_count import about_prompt_tokens, about_tokens
from selfinstruct.steps.costs.yields import assumptions
from selfinstruct.steps.strategies.build import STRATEGIES
from selfinstruct.testing.fake_server import Running
from tests.runs import recipe

TODAY = date(2026, 11, 21)
QUANTITIES = ("cost", "cost_per_record", "requests", "tokens_in", "tokens_out", "slots")
# Nobody listens there: an estimate that calls somebody fails.
NOWHERE = "http://127.0.0.1:9"


def write(folder: Path, url: str, **changes: Any) -> Path:
    """A recipe file for a run at `url`; `changes` are merged into its sections."""
    data = recipe(folder, url, concurrency=4)
    for key, value in changes.items():
        data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


def estimate(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, ["estimate", *arguments])


def as_json(*arguments: str) -> dict[str, Any]:
    """What the command says to programs, its last JSON document."""
    result = estimate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    start = result.stdout.index('{\n  "run"')
    return dict(json.loads(result.stdout[start:]))


def from_seeds(loaded: Recipe, today: date = TODAY) -> Estimate:
    """The estimate without a call."""
    return estimate_from_seeds(loaded, gather_seeds(loaded), today, gather_documents(loaded))


# -- from the seeds -------------------------------------------------------------------------------


def test_nothing_is_called_and_nothing_written(tmp_path: Path) -> None:
    """Without --pilot no server is needed and no run folder appears."""
    path = write(tmp_path, NOWHERE)
    output = tmp_path / "run"
    found = as_json(str(path), "-o", str(output), "--target", "500")
    assert found["target"] == 500
    assert found["kept"] == found["spent"] == 0
    assert not output.exists()


@pytest.mark.parametrize("kind", list(STRATEGIES))
def test_the_cases_are_ordered(tmp_path: Path, kind: str) -> None:
    """Low is at most expected and expected at most high, in every quantity, for every strategy."""
    path = write(tmp_path, NOWHERE, generate={"strategies": [{"kind": kind}]})
    documents = ["documents=seeds/insurance-terms.md"] if kind == "documents" else []
    found = from_seeds(load_recipe(path, documents))
    for name in QUANTITIES:
        low, expected, high = (getattr(c, name) for c in (found.low, found.expected, found.high))
        assert 0 < low <= expected <= high, name


@pytest.mark.parametrize(
    "path", sorted((shipped_root() / "recipes").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_shipped_recipe_can_be_estimated(path: Path) -> None:
    """Each has a price or is free, and a hosted one costs something for each record."""
    loaded = load_recipe(path)
    found = from_seeds(loaded)
    hosted = loaded.teacher.kind not in ("local", "vllm") and not str(
        loaded.teacher.base_url
    ).startswith("http://localhost")
    assert (found.expected.cost_per_record > 0) == hosted
    assert found.expected.requests > 0
    # Those that are hosted have a cap that their expected cost does not pass.
    assert not [warning for warning in found.warnings if "max_cost" in warning]


def test_cost_grows_faster_than_the_target_where_the_yield_falls(tmp_path: Path) -> None:
    """A hundred times the records cost a hundred times in the low case, and more in the high."""
    path = write(tmp_path, NOWHERE)
    small = from_seeds(load_recipe(path, ["generate.target=1000"]))
    large = from_seeds(load_recipe(path, ["generate.target=100000"]))
    assert large.low.cost == pytest.approx(100 * small.low.cost, rel=0.01)
    assert large.expected.cost > 101 * small.expected.cost
    assert large.high.cost > 150 * small.high.cost


def test_drawn_requests_are_counted(tmp_path: Path) -> None:
    """More examples in the prompt, and longer seeds, make more tokens."""

    def tokens(examples: int) -> float:
        config = {"strategies": [{"kind": "alpaca", "examples": examples}]}
        return (
            from_seeds(load_recipe(write(tmp_path, NOWHERE, generate=config)))
            .strategies[0]
            .tokens_in
        )

    assert tokens(8) > tokens(3) + 5 * 20


def test_replies_end_at_max_tokens(tmp_path: Path) -> None:
    """A list that does not fit brings fewer records a call, and no more tokens than allowed."""
    config = {"strategies": [{"kind": "alpaca", "tasks_per_request": 20}]}
    roomy = from_seeds(load_recipe(write(tmp_path, NOWHERE, generate=config)))
    config["strategies"][0]["max_tokens"] = 200
    tight = from_seeds(load_recipe(write(tmp_path, NOWHERE, generate=config)))
    assert tight.strategies[0].tokens_out == 200
    assert tight.strategies[0].kept < roomy.strategies[0].kept / 2
    config["strategies"][0]["max_tokens"] = 5
    with pytest.raises(RecipeError, match="leaves no room for a whole task"):
        from_seeds(load_recipe(write(tmp_path, NOWHERE, generate=config)))


def test_reasoning_is_counted_and_told(tmp_path: Path) -> None:
    """A model that thinks is dearer than its answers, unless it is told not to."""

    def run(**teacher: Any) -> Estimate:
        teacher = {"kind": "openai", "model": "gpt-6-luna", "max_tokens": 8000, **teacher}
        path = write(tmp_path, NOWHERE)
        data = yaml.safe_load(path.read_text("utf-8")) | {"teacher": teacher}
        return from_seeds(Recipe.model_validate(data))

    thinking, plain = run(), run(extra={"reasoning_effort": "none"})
    assert thinking.expected.tokens_out > plain.expected.tokens_out
    assert any("thinks before it answers" in warning for warning in thinking.warnings)
    assert not plain.warnings


def test_the_price_is_named_with_its_date_and_age(tmp_path: Path) -> None:
    """Source and date are shown; past half a year, and past its end, a price is warned of."""
    path = write(tmp_path, NOWHERE)
    data = yaml.safe_load(path.read_text("utf-8"))
    data["teacher"] = {"kind": "openai", "model": "gpt-5.6-sol-2026-07-09"}
    loaded = Recipe.model_validate(data)
    found = from_seeds(loaded)
    assert found.prices[0].checked == "2026-10-03"
    assert found.prices[0].source
    assert not [warning for warning in found.warnings if "checked" in warning]
    later = from_seeds(loaded, date(2027, 6, 1)).warnings
    assert any("was checked 241 days ago (2026-10-03)" in warning for warning in later)
    assert any("was announced to last until 2026-11-21" in warning for warning in later)


def test_an_unknown_model_asks_for_a_price(tmp_path: Path) -> None:
    """Exit 2 and what to write; with --no-price the tokens are counted."""
    write(tmp_path, NOWHERE)
    path = tmp_path / "recipe.yaml"
    data = yaml.safe_load(path.read_text("utf-8"))
    data["teacher"]["base_url"] = "https://models.example/v1"
    del data["prices"]
    path.write_text(yaml.safe_dump(data), "utf-8")
    with pytest.raises(RecipeError, match="no price is known for the model 'fake-1'"):
        cli.main(["estimate", str(path)], standalone_mode=False)
    found = as_json(str(path), "--no-price")
    assert found["expected"]["cost"] == 0
    assert found["expected"]["tokens_out"] > 0
    assert found["prices"][0]["source"] == "no price: tokens only"


def test_a_cap_below_the_expected_cost_is_told(tmp_path: Path) -> None:
    """What is seen in the estimate need not be found out by the run."""
    loaded = load_recipe(write(tmp_path, NOWHERE, generate={"target": 50000, "max_cost": "0.01"}))
    assert any("generate.max_cost is $0.01" in warning for warning in from_seeds(loaded).warnings)


@pytest.mark.parametrize(
    ("limit", "quantity"), [("requests_per_minute", "requests"), ("tokens_per_minute", "tokens")]
)
def test_rate_limits_bound_the_time(tmp_path: Path, limit: str, quantity: str) -> None:
    """A run is not quicker than the recipe's limits allow, whatever its concurrency."""
    teacher = {"kind": "openai", "model": "gpt-4.1-mini", "concurrency": 64}
    path = write(tmp_path, NOWHERE)
    data = yaml.safe_load(path.read_text("utf-8")) | {"teacher": teacher}
    free = from_seeds(Recipe.model_validate(data)).expected
    amount = free.requests if quantity == "requests" else free.tokens_in + free.tokens_out
    assert free.seconds is not None
    slow = amount / free.seconds / 10 * 60  # a tenth of that pace, per minute
    data["teacher"] = teacher | {limit: slow}
    bound = from_seeds(Recipe.model_validate(data)).expected
    assert bound.seconds == pytest.approx(10 * free.seconds, rel=0.02)
    assert bound.cost == free.cost


def test_prices_of_the_recipe_are_exact(tmp_path: Path) -> None:
    """Tokens times the recipe's decimal prices, to the picodollar."""
    path = write(tmp_path, NOWHERE, prices={"fake-1": {"input": "0.07", "output": "0.28"}})
    found = from_seeds(load_recipe(path))
    exact = found.expected.tokens_in * from_dollars("0.00000007")
    exact += found.expected.tokens_out * from_dollars("0.00000028")
    assert found.expected.cost == pytest.approx(exact, rel=1e-4)  # tokens are rounded for show
    assert found.prices[0].input == 0.07
    assert found.prices[0].source == "the recipe"


def test_people_see_the_cases(tmp_path: Path) -> None:
    """The plain output has the three cases and the dollars of a kept record."""
    result = estimate(str(write(tmp_path, NOWHERE)))
    assert result.exit_code == 0, result.output
    for text in ("low", "expected", "high", "a kept record", "price of fake-1: $1 in, $2 out"):
        assert text in result.stdout


# -- from a pilot ---------------------------------------------------------------------------------


def test_a_pilot_is_part_of_the_run(tmp_path: Path, fake_server: Running) -> None:
    """Its slots are judged and kept, the recipe stays as given, and nothing is paid for twice."""
    path = write(tmp_path, fake_server.url)
    output = str(tmp_path / "run")
    found = as_json(str(path), "-o", output, "--pilot", "10", "--target", "120")
    run = selfinstruct.Run(output)
    assert run.funnel().slots == 10
    assert found["kept"] == run.funnel().kept > 0
    assert found["basis"] == "a pilot of 10 slots"
    assert run.recipe.generate.max_requests is None
    assert run.recipe.generate.target == 120
    again = as_json(str(path), "-o", output, "--pilot", "10", "--target", "120")
    assert again == found
    run.generate()
    assert run.funnel().kept == 120
    assert max(fake_server.server.stats.served.values()) == 1


def test_a_pilots_interval_holds_what_the_run_then_takes(
    tmp_path: Path, fake_server: Running
) -> None:
    """The finished run lies between low and high, and near what was expected.

    Over 24 runs with other seeds the interval held the cost 23 times and the requests 23 times.
    """
    path = write(tmp_path, fake_server.url, generate={"target": 400}, seed=1)
    run = selfinstruct.Run.from_recipe(
        path, overrides=["generate.max_requests=60"], output=tmp_path / "run"
    )
    with pytest.raises(NoProgress):
        run.generate()
    loaded = load_recipe(path)
    found = estimate_from_run(run.folder, loaded, TODAY)
    selfinstruct.Run.from_recipe(path, output=tmp_path / "run").generate()
    cost = sum(line.cost for line in run.bill())
    assert found.low.cost < cost < found.high.cost
    assert found.low.requests < run.funnel().requests < found.high.requests
    assert found.expected.cost == pytest.approx(cost, rel=0.1)
    assert found.low.seconds is not None


def test_the_cap_ends_a_pilot(tmp_path: Path, fake_server: Running) -> None:
    """What was judged until then is extrapolated from, and the cap is not passed."""
    path = write(tmp_path, fake_server.url)
    output = str(tmp_path / "run")
    run = ("-o", output, "--pilot", "500", "--max-cost", "0.03", "--target", "5000")
    found = as_json(str(path), *run)
    judged = selfinstruct.Run(output).funnel().slots
    assert 0 < judged < 500
    assert found["spent"] <= 0.03
    assert found["basis"] == f"a pilot of {judged} slots"
    assert any("max_cost" in warning for warning in found["warnings"])
    with pytest.raises(CapReached):
        selfinstruct.Run(output).generate()


def test_a_pilot_that_kept_nothing_says_so(
    tmp_path: Path, start_fake_server: Callable[..., Running]
) -> None:
    """There is nothing to divide by: one line points to the reasons."""
    server = start_fake_server(faults={"length": 1.0})
    config = {"strategies": [{"kind": "json"}]}
    path = write(tmp_path, server.url, generate=config, filters={"min_words": 60})
    with pytest.raises(NoProgress, match="kept nothing"):
        cli.main(
            ["estimate", str(path), "-o", str(tmp_path / "run"), "--pilot", "3"],
            standalone_mode=False,
        )


# -- the arithmetic -------------------------------------------------------------------------------

records = st.integers(min_value=1, max_value=10**5)


@given(records, records, records, st.floats(min_value=0, max_value=0.5))
def test_falling_yield_never_needs_fewer_slots(
    start: int, more: int, pool: int, fall: float
) -> None:
    """The stretch is at least 1, exactly 1 without a fall, and grows with the fall."""
    factor = stretch(start, start + more, pool, fall)
    assert factor >= 1 - 1e-9
    assert stretch(start, start + more, pool, 0.0) == 1.0
    assert stretch(start, start + more, pool, min(0.9, fall + 0.1)) >= factor - 1e-9


def test_the_stretch_is_the_sum_over_records() -> None:
    """The closed form agrees with adding up one record after the other."""
    start, target, pool, fall = 100, 5000, 400, 0.1
    slots = 0.0
    for n in range(start, target):
        doublings = max(0.0, math.log2((n + 0.5) / pool))
        slots += 1 / (1 - fall) ** doublings
    assert stretch(start, target, pool, fall) == pytest.approx(slots / (target - start), rel=1e-3)


def test_the_interval_narrows_with_the_pilot() -> None:
    """Equal slots leave no doubt; the same spread over more slots leaves less."""
    equal = [Slot(Amounts(slots=1, requests=1, cost=10), 2)] * 20
    low, high = interval(equal, ahead=100)
    assert low == high == per_record(equal)
    mixed = [Slot(Amounts(slots=1, requests=1, cost=10), n % 4) for n in range(16)]
    few, many = interval(mixed, ahead=1000), interval(mixed * 16, ahead=1000)
    assert few[0].cost < per_record(mixed).cost < few[1].cost
    assert many[1].cost - many[0].cost < (few[1].cost - few[0].cost) / 2
    soon = interval(mixed, ahead=4)
    assert soon[1].cost - soon[0].cost > few[1].cost - few[0].cost  # few slots ahead vary more


def test_a_falling_yield_is_seen_in_the_pilot() -> None:
    """Half the yield in the second half is a fall; an even yield and a short pilot are not."""
    slot = Amounts(slots=1)
    even = [Slot(slot, 3)] * 60
    falling = [Slot(slot, 4)] * 30 + [Slot(slot, 2)] * 30
    assert measured_fall(even, seeds=20) == 0.0
    assert 0.2 < measured_fall(falling, seeds=20) <= 0.5
    assert measured_fall(falling[:30], seeds=20) == 0.0


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog.", 9, 12),
        ("internationalization", 2, 4),
        ("12345", 5, 5),
        ("写一首关于秋天的诗", 8, 10),
        ("Напишите стихотворение", 6, 20),
    ],
)
def test_tokens_are_about_right(text: str, low: int, high: int) -> None:
    """Words, digits, marks and other scripts count about as tokenizers count them."""
    assert low <= about_tokens(text) <= high


def test_a_conversation_has_markers_and_a_raw_prompt_none() -> None:
    """The chat template's own tokens are counted too."""
    message = Message("user", "Say hello.")
    assert about_prompt_tokens([message]) > about_tokens("Say hello.")
    assert about_prompt_tokens([], "Say hello.") == about_tokens("Say hello.")


def test_assumptions_cover_every_strategy_and_are_ordered() -> None:
    """Each class of teachers knows each strategy; low cost goes with the high yield."""
    known = assumptions()
    assert known.checked <= date.today()
    for kind, described in known.classes.items():
        assert set(described.strategies) == set(STRATEGIES), kind
        assert described.source
        for assumed in described.strategies.values():
            low, expected, high = assumed.share
            assert 1 >= low >= expected >= high > 0
        assert list(described.length_factor) == sorted(described.length_factor)
    for triple in (known.token_factor, known.thinking, known.fall):
        assert list(triple) == sorted(triple)
