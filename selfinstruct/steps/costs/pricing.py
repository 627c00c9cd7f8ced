"""What a call costs: prices as dated data, exact sums in picodollars, and a worst case to reserve.

The shipped table is `steps/data/prices.yaml`. A recipe's own prices go before it. Models served on
the loopback interface cost nothing per token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from selfinstruct.core.money import from_dollars
from selfinstruct.core.types import Request, Usage

STALE_DAYS = 180

_TABLE = Path(__file__).parents[1] / "data" / "prices.yaml"
_DATED = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")
# Bedrock's names: us.anthropic.claude-haiku-4-5-20251001-v1:0
_BEDROCK_PREFIX = re.compile(r"^(?:[a-z]{2,6}\.)?(?:anthropic|openai|google)\.")
_BEDROCK_VERSION = re.compile(r"-v\d+(?::\d+)?$")
# Tokens a chat template may add around a message, and around a whole conversation.
_PER_MESSAGE, _PER_REQUEST = 16, 64


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Picodollars per token, and where they are from.

    `cached` is reading from the provider's cache, `cache_write` writing to it for five minutes,
    `cache_write_1h` for an hour (0 stands for the five-minute price). `output` includes reasoning;
    `reasoning` says that the model thinks before it answers. `batch` is the factor of the batch
    API. `checked` is the date of `source`, None for the recipe's own; `until` is the last day of
    a price that was announced to end.
    """

    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_1h: int = 0
    batch: float = 1.0
    reasoning: bool = False
    checked: date | None = None
    until: date | None = None
    source: str = ""


FREE = Rate(input=0, output=0, cached=0, cache_write=0)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load(_TABLE.read_text("utf-8"))
    return table


def shipped_rates(today: date | None = None) -> dict[str, Rate]:
    """The shipped price table by model name, as in force on `today`."""
    return _rates_on(today or date.today())


@cache
def _rates_on(today: date) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    # An announced price replaces the one before it on its first day.
    for entry in sorted(_table()["entries"], key=lambda entry: entry.get("from", date.min)):
        if entry.get("from", date.min) <= today:
            rates.pop(entry["model"], None)
            rates[entry["model"]] = _rate(entry)
    order = {entry["model"]: n for n, entry in reversed(list(enumerate(_table()["entries"])))}
    return dict(sorted(rates.items(), key=lambda item: order[item[0]]))


def rate_for(
    model: str,
    overrides: Mapping[str, Mapping[str, Any]],
    *,
    regional: bool = False,
    today: date | None = None,
) -> Rate | None:
    """The rate of `model`: the recipe's own, else the table's, else None.

    Args:
        model: the name as the provider knows it; a dated suffix, a ``provider/`` prefix and
            Bedrock's way of naming are ignored where the full name has no entry.
        overrides: dollars per million tokens by model: input, output, cached, cache_write.
        regional: whether the endpoint is a cloud's regional one, which costs a tenth more than
            the table says; the recipe's own prices are taken as they are.
        today: the day whose prices are asked for; today where None.
    """
    own = {name: _rate(price) for name, price in overrides.items()}
    shipped = shipped_rates(today)
    for name in _names(model):
        if name in own:
            return own[name]
        if name in shipped:
            return _regional(shipped[name]) if regional else shipped[name]
    return None


def _names(model: str) -> Iterator[str]:
    """The names under which `model` may be listed, the most exact first."""
    yield model
    bare = model.rsplit("/", 1)[-1]
    yield bare
    plain = _DATED.sub("", _BEDROCK_VERSION.sub("", _BEDROCK_PREFIX.sub("", bare)))
    yield plain
    if plain.startswith("claude-"):
        yield plain.replace(".", "-")  # OpenRouter writes claude-haiku-4.5


def _regional(rate: Rate) -> Rate:
    """`rate` on a regional endpoint, rounded up."""
    factor = Decimal(str(_table()["regional_factor"]))

    def times(price: int) -> int:
        return int(-(-price * factor // 1))

    return msgspec.structs.replace(
        rate,
        input=times(rate.input),
        output=times(rate.output),
        cached=times(rate.cached),
        cache_write=times(rate.cache_write),
        cache_write_1h=times(rate.cache_write_1h),
    )


def price_warnings(model: str, rate: Rate, today: date) -> list[str]:
    """What a user should know of `rate` before trusting it: its age, and an announced end."""
    found = []
    if rate.checked is not None and (today - rate.checked).days > STALE_DAYS:
        found.append(
            f"the price of {model} was checked {(today - rate.checked).days} days ago "
            f"({rate.checked}); compare it with the provider's list and give it under prices:"
        )
    if rate.until is not None and today > rate.until:
        found.append(
            f"the price of {model} was announced to last until {rate.until}; compare it with the "
            "provider's list and give it under prices:"
        )
    return found


def cost(rate: Rate, usage: Usage) -> int:
    """What a call with this usage costs, in picodollars."""
    fresh = max(0, usage.input - usage.cached - usage.cache_write)
    return (
        fresh * rate.input
        + usage.cached * rate.cached
        + usage.cache_write * rate.cache_write
        + usage.output * rate.output
    )


def worst_case(rate: Rate, request: Request) -> int:
    """What a request can cost at most, in picodollars.

    A token of a byte-level tokenizer is at least one byte of UTF-8, so the bytes of the prompt
    bound its tokens; the reply is bounded by `max_tokens`.
    """
    texts = [message.content for message in request.messages] or [request.prompt]
    tokens = _PER_REQUEST + sum(
        len(text.encode("utf-8", "surrogatepass")) + _PER_MESSAGE for text in texts
    )
    if request.sampling.schema is not None:
        tokens += len(msgspec.json.encode(request.sampling.schema))
    dearest = max(rate.input, rate.cached, rate.cache_write)
    if request.sampling.extra:  # which may ask for the cache that costs more to write
        dearest = max(dearest, rate.cache_write_1h)
    return tokens * dearest + request.sampling.max_tokens * rate.output


def _rate(price: Mapping[str, Any]) -> Rate:
    """A table's entry, dollars per million tokens, as picodollars per token, rounded up."""

    def per_token(name: str, otherwise: int = 0) -> int:
        value = price.get(name)
        # A dollar for a million tokens is a million picodollars for one.
        return otherwise if value is None else from_dollars(Decimal(str(value)) / 10**6)

    whole = per_token("input")
    written = per_token("cache_write", whole)
    return Rate(
        input=whole,
        output=per_token("output"),
        cached=per_token("cached", whole),
        cache_write=written,
        cache_write_1h=per_token("cache_write_1h", written),
        batch=float(price.get("batch", 1.0)),
        reasoning=bool(price.get("reasoning", False)),
        checked=price.get("checked"),
        until=price.get("until"),
        source=price.get("source", ""),
    )
