"""Prices: the table, overrides, exact costs, and a worst case that bounds them."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.cli.main import cli
from selfinstruct.core.ids import make_request
from selfinstruct.core.money import from_dollars
from selfinstruct.core.types import Message, Sampling, Usage
from selfinstruct.steps.costs.pricing import (
    Rate,
    cost,
    price_warnings,
    rate_for,
    shipped_rates,
    worst_case,
)

TODAY = date(2026, 11, 21)


def test_a_million_tokens_cost_the_list_price() -> None:
    """The table's dollars per million tokens come out to the last picodollar."""
    rate = rate_for("gpt-4o-mini", {})
    assert rate is not None
    assert cost(rate, Usage(input=10**6)) == from_dollars("0.15")
    assert cost(rate, Usage(output=10**6)) == from_dollars("0.60")
    assert cost(rate, Usage(input=10**6, cached=10**6)) == from_dollars("0.075")


def test_every_entry_is_dated_and_ordered() -> None:
    """Each shipped price says when it was checked; cached input is never dearer than fresh."""
    for name, rate in shipped_rates().items():
        assert isinstance(rate.checked, date), name
        assert 0 <= rate.cached <= rate.input < rate.output, name
        assert rate.cache_write >= rate.input, name


def test_names_match_with_dates_and_prefixes() -> None:
    """A dated release and a provider's prefix find the entry of the bare name."""
    assert rate_for("gpt-4o-mini-2024-07-18", {}) == rate_for("gpt-4o-mini", {})
    assert rate_for("anthropic/claude-haiku-4-5-20251001", {}) == rate_for("claude-haiku-4-5", {})
    assert rate_for("no-such-model", {}) is None


def test_the_recipe_goes_before_the_table() -> None:
    """An override replaces the shipped price, with input's price where parts are not given."""
    rate = rate_for("gpt-4o-mini", {"gpt-4o-mini": {"input": "1", "output": "2"}})
    assert rate is not None
    assert cost(rate, Usage(input=1, cached=1, output=1)) == from_dollars("0.000003")


def test_every_entry_names_its_source_and_is_listed_once() -> None:
    """No price without a source; a model has one price for any day."""
    for day in (date(2026, 11, 21), date(2027, 1, 1)):
        for name, rate in shipped_rates(day).items():
            assert rate.source, name
            assert rate.cache_write_1h >= rate.cache_write, name
            assert 0 < rate.batch <= 1, name
            assert rate.until is None or rate.until >= date(2026, 11, 21), name


def test_an_announced_price_holds_from_its_first_day() -> None:
    """The price of the day is taken, without anybody changing the table."""
    before = rate_for("gemini-3.8-flash", {}, today=date(2026, 12, 31))
    after = rate_for("gemini-3.8-flash", {}, today=date(2027, 1, 1))
    assert before is not None
    assert after is not None
    assert (before.input, before.output) == (750_000, 3_750_000)
    assert (after.input, after.output) == (1_500_000, 7_500_000)
    assert before.until == date(2026, 12, 31)
    assert after.until is None


def test_old_prices_and_those_that_ended_are_warned_of() -> None:
    """Half a year is the limit; a price that the provider let end is no price."""
    rate = rate_for("gpt-5.6-sol", {}, today=date(2026, 11, 21))
    assert rate is not None
    assert price_warnings("m", rate, date(2026, 11, 21)) == []
    assert "until 2026-11-21" in price_warnings("m", rate, date(2026, 11, 22))[0]
    old = price_warnings("m", rate, date(2027, 4, 2))
    assert "181 days ago" in old[0]
    assert price_warnings("m", Rate(input=1, output=1, cached=1, cache_write=1), TODAY) == []


@pytest.mark.parametrize(
    "name",
    [
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "claude-haiku-4-5@20251001",
        "anthropic/claude-haiku-4.5",
    ],
)
def test_the_clouds_names_are_understood(name: str) -> None:
    """Bedrock, Vertex and OpenRouter each write a model's name in their own way."""
    assert rate_for(name, {}) == rate_for("claude-haiku-4-5", {})


def test_a_variant_with_another_price_is_not_taken_for_the_model() -> None:
    """A free or batched variant of a model is not priced like the model."""
    assert rate_for("openai/gpt-4o-mini:free", {}) is None
    assert rate_for("gpt-4o-mini-audio-preview", {}) is None


@given(st.decimals(min_value=0, max_value=1000, places=6), st.integers(0, 10**9))
def test_overrides_are_exact(price: Decimal, tokens: int) -> None:
    """Up to six decimals of a dollar per million tokens multiply without rounding."""
    rate = rate_for("m", {"m": {"input": price, "output": price}})
    assert rate is not None
    assert Decimal(cost(rate, Usage(output=tokens))) == price * tokens * 10**6


def test_the_dearest_cache_is_reserved_where_it_may_be_asked_for() -> None:
    """`extra` can ask for the cache of an hour: the cap holds all the same."""
    rate = rate_for("claude-sonnet-4-6", {})
    assert rate is not None

    def reserved(extra: dict[str, object]) -> int:
        sampling = Sampling(max_tokens=1, extra=extra)
        messages = (Message("user", "x" * 1000),)
        made = make_request(teacher="t", model="m", sampling=sampling, messages=messages, sample=0)
        return worst_case(rate, made)

    assert reserved({"cache_control": {"type": "ephemeral", "ttl": "1h"}}) > 1.5 * reserved({})


def test_the_command_shows_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column in the plain table; date, age and source for programs."""
    monkeypatch.setenv("COLUMNS", "180")
    plain = CliRunner().invoke(cli, ["prices"])
    assert plain.exit_code == 0
    assert "genai-prices 0.2.3" in plain.stdout
    entry = json.loads(CliRunner().invoke(cli, ["prices", "--json"]).stdout)["claude-haiku-4-5"]
    assert entry["age_days"] == (date.today() - date(2026, 10, 16)).days
    assert (entry["cache_write"], entry["cache_write_1h"]) == (1.25, 2.0)
    assert entry["source"]


counts = st.integers(min_value=0, max_value=10**6)
prices = st.integers(min_value=0, max_value=10**9)


@given(st.text(max_size=200), counts, prices, prices, st.data())
def test_the_worst_case_bounds_every_cost(
    text: str, output: int, price_in: int, price_out: int, data: st.DataObject
) -> None:
    """No reply within its limits can cost more than what was reserved for it."""
    request = make_request(
        teacher="t",
        model="m",
        sampling=Sampling(max_tokens=max(1, output)),
        messages=(Message("user", text),),
        sample=0,
    )
    tokens = data.draw(st.integers(0, len(text.encode("utf-8", "surrogatepass")) + 16))
    cached = data.draw(st.integers(0, tokens))
    written = data.draw(st.integers(0, tokens - cached))
    rate = Rate(input=price_in, output=price_out, cached=price_in // 2, cache_write=price_in * 2)
    usage = Usage(input=tokens, cached=cached, cache_write=written, output=output)
    assert cost(rate, usage) <= worst_case(rate, request)
