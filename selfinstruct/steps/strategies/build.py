"""From a recipe's names to strategies."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from selfinstruct.core.sections.generate import StrategyConfig
from selfinstruct.core.types import Sampling
from selfinstruct.steps.strategies import alpaca, documents, json_task, magpie, self_instruct
from selfinstruct.steps.strategies.shapes import Strategy


def _numbers(config: StrategyConfig, examples: int, machine: int) -> tuple[int, int]:
    """Examples shown and how many of them may be machine-written."""
    shown = config.examples or examples
    wanted = machine if config.machine_examples is None else config.machine_examples
    return shown, min(wanted, shown)


def _alpaca(config: StrategyConfig, sampling: Sampling, header: str, structured: bool) -> Strategy:
    shown, machine = _numbers(config, alpaca.DEFAULT_EXAMPLES, alpaca.DEFAULT_MACHINE)
    prompt = config.prompt or alpaca.PROMPT
    return alpaca.Alpaca(prompt, sampling, shown, machine, config.tasks_per_request)


def _self_instruct(
    config: StrategyConfig, sampling: Sampling, header: str, structured: bool
) -> Strategy:
    shown, machine = _numbers(config, self_instruct.DEFAULT_EXAMPLES, self_instruct.DEFAULT_MACHINE)
    return self_instruct.SelfInstruct(
        config.prompt or self_instruct.PROMPT,
        sampling,
        _answering(config, sampling),
        shown,
        machine,
    )


def _json(config: StrategyConfig, sampling: Sampling, header: str, structured: bool) -> Strategy:
    shown, machine = _numbers(config, json_task.DEFAULT_EXAMPLES, json_task.DEFAULT_MACHINE)
    prompt = config.prompt or json_task.PROMPT
    return json_task.JsonTask(prompt, sampling, shown, machine, structured)


def _magpie(config: StrategyConfig, sampling: Sampling, header: str, structured: bool) -> Strategy:
    prompt = config.prompt or magpie.PROMPT
    return magpie.Magpie(prompt, sampling, _answering(config, sampling), header)


def _documents(
    config: StrategyConfig, sampling: Sampling, header: str, structured: bool
) -> Strategy:
    shown, machine = _numbers(config, documents.DEFAULT_EXAMPLES, documents.DEFAULT_MACHINE)
    prompt = config.prompt or documents.PROMPT
    return documents.Documents(prompt, sampling, shown, machine, config.questions, structured)


def _answering(config: StrategyConfig, sampling: Sampling) -> Sampling:
    """The second call's parameters."""
    if config.answer_temperature is None:
        return sampling
    return msgspec.structs.replace(sampling, temperature=config.answer_temperature)


STRATEGIES: dict[str, Callable[[StrategyConfig, Sampling, str, bool], Strategy]] = {
    "alpaca": _alpaca,
    "self-instruct": _self_instruct,
    "json": _json,
    "magpie": _magpie,
    "documents": _documents,
}

STRUCTURED = frozenset({"json", "documents"})
"""Strategies that send a JSON schema to teachers that hold replies to one."""


def make_strategy(
    config: StrategyConfig, sampling: Sampling, header: str = "", structured: bool = True
) -> Strategy:
    """The strategy a recipe names.

    Args:
        config: the recipe's entry; its temperature and max_tokens go before the teacher's.
        sampling: the teacher's parameters.
        header: the teacher's user header, which magpie needs.
        structured: whether the teacher holds replies to a JSON schema.
    """
    sampling = msgspec.structs.replace(
        sampling,
        temperature=sampling.temperature if config.temperature is None else config.temperature,
        max_tokens=config.max_tokens or sampling.max_tokens,
    )
    return STRATEGIES[config.kind](config, sampling, header, structured)
