"""From a recipe's teachers to routes: built, priced, checked for privacy, not yet started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from selfinstruct.core.errors import PrivacyError, RecipeError
from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.sections.teacher import Price, TeacherConfig
from selfinstruct.core.types import Sampling
from selfinstruct.engine.concurrency import SLOW_START, Gate
from selfinstruct.engine.dispatch import Dispatcher
from selfinstruct.engine.health import Health
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.limits import Pacer
from selfinstruct.engine.probe import follows_schema
from selfinstruct.engine.route import Route
from selfinstruct.steps.costs.pricing import FREE, Rate, rate_for
from selfinstruct.steps.privacy import Policy, is_loopback
from selfinstruct.steps.strategies.build import STRATEGIES, STRUCTURED, make_strategy
from selfinstruct.steps.strategies.shapes import Strategy
from selfinstruct.steps.teachers.build import make_teacher
from selfinstruct.steps.teachers.clouds import regional


class Routes:
    """The teachers of a run.

    Args:
        writer: who writes instructions; also answers them where `answerer` is None.
        policy: which hosts may be spoken to.
        prices: the recipe's own prices.
        no_price: whether a model without a known price may be used.
        private: names of private seed sources without leave to go to a remote teacher.

    Raises `RecipeError` for a model without a price, `PrivacyError` for a remote teacher where the
    policy or a private source forbids it.
    """

    def __init__(
        self,
        writer: TeacherConfig,
        answerer: TeacherConfig | None,
        *,
        policy: Policy,
        prices: Mapping[str, Price],
        no_price: bool,
        private: Sequence[str],
    ) -> None:
        overrides = {name: price.model_dump() for name, price in prices.items()}
        self._writer_config = writer
        configs = [writer] if answerer is None else [writer, answerer]
        for config in configs:
            if private and not is_local(config):
                raise PrivacyError(
                    f"{private[0]}: a private source, and teacher {config.kind} "
                    f"{config.model!r} is not on this machine; use a local teacher, or give "
                    "leave with allow_remote: true at that source"
                )
        routes = [_route(config, policy, overrides, no_price) for config in configs]
        self.writer, self.answerer = routes[0], routes[-1]

    async def strategies(
        self, configs: Sequence[StrategyConfig], ledger: Ledger, dispatcher: Dispatcher
    ) -> tuple[list[tuple[Strategy, float]], dict[str, Strategy]]:
        """The strategies with their weights, and a reader of each kind for earlier requests.

        Starts the writer if one needs its chat template, or has to be asked whether it follows
        JSON schemas.
        """
        header, structured = "", True
        if any(config.kind in STRUCTURED for config in configs):
            structured = await self._structured(ledger, dispatcher)
        if any(config.kind == "magpie" for config in configs):
            header = await self._header(ledger)
        sampling = Sampling(
            max_tokens=self._writer_config.max_tokens,
            temperature=self._writer_config.temperature,
            top_p=self._writer_config.top_p,
            extra=self._writer_config.extra,
        )
        active = [
            (make_strategy(config, sampling, header, structured), config.weight)
            for config in configs
        ]
        readers = {
            kind: make_strategy(StrategyConfig.model_validate({"kind": kind}), sampling, header)
            for kind in STRATEGIES
        }
        return active, readers

    async def _structured(self, ledger: Ledger, dispatcher: Dispatcher) -> bool:
        # The embedded llama.cpp server does, and a script need not.
        if self._writer_config.kind in ("local", "scripted"):
            return True
        return await follows_schema(self.writer, dispatcher, ledger)

    async def _header(self, ledger: Ledger) -> str:
        """The writer's user header, asked for once in a run."""
        key = f"user_header:{self.writer.teacher.id}:{self.writer.teacher.model}"
        header = ledger.meta(key)
        if header is None:
            await self.writer.start()
            header = await self.writer.teacher.user_header()
            ledger.set_meta(key, header)
        return header

    async def close(self) -> None:
        """Stop whatever was started."""
        await self.writer.close()
        if self.answerer is not self.writer:
            await self.answerer.close()


def is_local(config: TeacherConfig) -> bool:
    """Whether what is sent to this teacher stays on this machine."""
    if config.kind in ("local", "vllm", "scripted"):
        return True
    hosts = [urlsplit(base_url).hostname for base_url in config.base_urls]
    return bool(hosts) and all(host is not None and is_loopback(host) for host in hosts)


def _route(
    config: TeacherConfig,
    policy: Policy,
    overrides: Mapping[str, Mapping[str, object]],
    no_price: bool,
) -> Route:
    teacher = make_teacher(config, policy)
    return Route(
        teacher=teacher,
        rate=rate_of(config, overrides, no_price),
        max_attempts=config.max_attempts,
        timeout_s=config.timeout_s,
        # A server of one's own on this machine has no rate limit to be found out slowly.
        gate=Gate(config.concurrency, start=None if is_local(config) else SLOW_START),
        pacer=Pacer(
            requests_per_minute=config.requests_per_minute,
            tokens_per_minute=config.tokens_per_minute,
        ),
        health=Health(config.patience_s),
    )


def rate_of(
    config: TeacherConfig, overrides: Mapping[str, Mapping[str, object]], no_price: bool
) -> Rate:
    """What a teacher's tokens cost. Raises `RecipeError` where that is not known."""
    if is_local(config) and config.model not in overrides:
        return FREE
    rate = rate_for(
        config.model,
        overrides,
        regional=regional(config.kind, config.model, config.region),
    )
    if rate is None and not no_price:
        raise RecipeError(
            f"no price is known for the model {config.model!r}: add it to the recipe (prices: "
            f"{{{config.model}: {{input: ..., output: ...}}}}, dollars per million tokens), or set "
            "generate.no_price=true to count its tokens only"
        )
    return rate or FREE
