"""Rules: faults that one record shows by itself, rejected, flagged or left alone.

What each rule finds is in `steps.rules`; here they meet the recipe's actions. A rule's name is its
key in the recipe, the reason of its rejections and its flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from selfinstruct.core.sections.filters import CorrectnessConfig, RulesConfig
from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.correctness.arithmetic import wrong_arithmetic
from selfinstruct.steps.correctness.equations import wrong_solution
from selfinstruct.steps.correctness.failing import failing_python
from selfinstruct.steps.correctness.formats import invalid_format
from selfinstruct.steps.correctness.labels import wrong_label
from selfinstruct.steps.correctness.python_code import invalid_python
from selfinstruct.steps.correctness.sandbox import require_limits
from selfinstruct.steps.rules.characters import stray_characters
from selfinstruct.steps.rules.inputs import input_repeated, missing_input
from selfinstruct.steps.rules.language import other_language
from selfinstruct.steps.rules.merged import merged_record
from selfinstruct.steps.rules.personal import personal_data
from selfinstruct.steps.rules.phrases import NAMES, load_phrases, phrase_rule
from selfinstruct.steps.rules.placeholders import placeholder
from selfinstruct.steps.rules.repetition import repetition
from selfinstruct.steps.rules.sources import invented_citation, invented_link, unseen_source
from selfinstruct.steps.rules.unfinished import hanging, unfinished
from selfinstruct.steps.rules.view import Rule, View

RULE_REASONS = {
    "impossible_task": "its instruction asks for what a text cannot be or do",
    "missing_input": "its instruction speaks of a text that is not there",
    "unseen_source": "it is about a link, picture or recording that cannot be seen",
    "no_input": "its input is a way to say that there is none",
    "input_repeated": "its input stands in its instruction too",
    "no_output": "its output is a way to say that there is none",
    "refusal": "its output declines the task, or speaks of itself as a language model",
    "merged_record": "its output holds another task",
    "unfinished": "its output stops before its end",
    "repetition": "its output repeats itself",
    "placeholder": "its output has gaps to fill that nobody asked for",
    "invented_link": "its output links to a page that the task does not name",
    "invented_citation": "its output cites a source that the task does not name",
    "stray_characters": "it holds control characters, escapes or wrongly decoded text",
    "toxic_words": "it holds a word of the list of insults",
    "personal_data": "it holds what looks like a person's address, number or id",
    "other_language": "its instruction or output is in another language than those expected",
}
"""Every rule of `filters.rules`, in the order they are tried, and what it finds."""

CORRECTNESS_REASONS = {
    "wrong_arithmetic": "a sum in its output is wrong, or the result asked for is not there",
    "wrong_solution": "its output does not solve the equation",
    "invalid_format": "its output does not parse as the format asked for",
    "invalid_python": "its Python does not compile",
    "failing_python": "its Python fails when it is run",
    "wrong_label": "its answer is none of the labels asked for",
}
"""Every check of `filters.correctness`, in the order they are tried, and what it finds."""

REASONS = {**RULE_REASONS, **CORRECTNESS_REASONS}

_CODE: dict[str, Rule] = {
    "unseen_source": unseen_source,
    "input_repeated": input_repeated,
    "merged_record": merged_record,
    "unfinished": unfinished,
    "repetition": repetition,
    "placeholder": placeholder,
    "invented_link": invented_link,
    "invented_citation": invented_citation,
    "stray_characters": stray_characters,
    "personal_data": personal_data,
}
# Rules that look further where a phrase was found.
_WITH_PHRASES: dict[str, Callable[[Rule], Rule]] = {
    "missing_input": missing_input,
    "unfinished": hanging,
}


class Rules:
    """Rejects a record for the first fault of a rejecting rule, and names those of flagging rules.

    Args:
        name: the filter's.
        rules: by name, in the order they are tried.
        actions: what to do about each: "reject", "flag" or "off".
    """

    def __init__(self, name: str, rules: Mapping[str, Rule], actions: Mapping[str, str]) -> None:
        self.name = name
        self._rejecting = {n: rule for n, rule in rules.items() if actions[n] == "reject"}
        self._flagging = {n: rule for n, rule in rules.items() if actions[n] == "flag"}

    def check(self, candidate: Candidate) -> Verdict | None:
        """The verdict of the first rejecting rule that finds something."""
        for rule, detail in _found(self._rejecting, candidate):
            return Verdict(candidate_id=candidate.id, reason=rule, detail=detail)
        return None

    def flags(self, candidate: Candidate) -> list[tuple[str, str]]:
        """What the flagging rules find: name and detail."""
        return list(_found(self._flagging, candidate))

    def add(self, item: Candidate | SeedTask) -> None:
        """Nothing: the rules look at one candidate alone."""


def build_rules(config: RulesConfig) -> Rules:
    """The rules of a recipe.

    Raises:
        RecipeError: the file of phrases cannot be read.
        MissingDependency: `other_language` is on without what it needs.
    """
    return Rules("rules", all_rules(config), config.actions)


def build_correctness(config: CorrectnessConfig) -> Rules:
    """The correctness checks of a recipe.

    Raises:
        RecipeError: see `all_checks`.
    """
    return Rules("correctness", all_checks(config), config.actions)


def all_rules(config: RulesConfig) -> dict[str, Rule]:
    """Every rule that is not off, by name, in the order they are tried.

    Raises:
        RecipeError: the file of phrases cannot be read.
    """
    wanted = [name for name in RULE_REASONS if config.actions[name] != "off"]
    entries = load_phrases(config.phrases).rules if set(wanted) & set(NAMES) else []
    rules: dict[str, Rule] = {}
    for name in wanted:
        own = [entry for entry in entries if entry.rule == name]
        parts = [phrase_rule(own)] if own else []
        if name in _WITH_PHRASES:
            parts = [_WITH_PHRASES[name](part) for part in parts]
        if name in _CODE:
            parts.append(_CODE[name])
        if name == "other_language":
            parts.append(other_language(config.languages))
        if parts:
            rules[name] = _either(parts)
    return rules


_CHECKS: dict[str, Rule] = {
    "wrong_arithmetic": wrong_arithmetic,
    "wrong_solution": wrong_solution,
    "invalid_format": invalid_format,
    "invalid_python": invalid_python,
    "failing_python": failing_python,
    "wrong_label": wrong_label,
}


def all_checks(config: CorrectnessConfig) -> dict[str, Rule]:
    """Every correctness check that is not off, by name, in the order they are tried.

    Raises:
        RecipeError: `failing_python` is on where a child process cannot be limited.
    """
    if config.failing_python != "off":
        require_limits()
    return {name: check for name, check in _CHECKS.items() if config.actions[name] != "off"}


def _either(rules: list[Rule]) -> Rule:
    if len(rules) == 1:
        return rules[0]
    return lambda view: next(filter(None, (rule(view) for rule in rules)), "")


def _found(rules: Mapping[str, Rule], candidate: Candidate) -> Iterator[tuple[str, str]]:
    if not rules:
        return
    view = _view(candidate.instruction, candidate.input, candidate.output)
    for name, rule in rules.items():
        detail = rule(view)
        if detail:
            yield name, detail


@lru_cache(maxsize=2)
def _view(instruction: str, input: str, output: str) -> View:
    """A record's view; four looks in a row (rules and correctness, each twice) fold it once."""
    return View(instruction, input, output)
