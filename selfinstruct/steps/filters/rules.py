"""Rules: faults that one record shows by itself, rejected, flagged or left alone.

What each rule finds is in `steps.rules`; here they meet the recipe's actions. A rule's name is its
key in the recipe, the reason of its rejections and its flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from selfinstruct.core.recipe import RulesConfig
from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.rules.phrases import NAMES, PhraseRuleName, load_phrases, phrase_rule
from selfinstruct.steps.rules.repetition import repetition
from selfinstruct.steps.rules.view import Rule, View

REASONS = {
    "ai_boilerplate": "its output speaks of itself as an AI or a language model",
    "no_input": "its input is a way to say that there is none",
    "no_output": "its output is a way to say that there is none",
    "repetition": "its output repeats itself",
}
"""Every rule, and what it finds."""

_CODE: dict[str, Rule] = {"repetition": repetition}


class Rules:
    """Rejects a record for the first fault of a rejecting rule, and names those of flagging rules.

    Args:
        rules: by name, in the order they are tried.
        actions: what to do about each: "reject", "flag" or "off".
    """

    name = "rules"

    def __init__(self, rules: Mapping[str, Rule], actions: Mapping[str, str]) -> None:
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
    """
    return Rules(all_rules(config), config.actions)


def all_rules(config: RulesConfig) -> dict[str, Rule]:
    """Every rule that is not off, by name, in the order they are tried."""
    wanted = {name for name, action in config.actions.items() if action != "off"}
    rules: dict[str, Rule] = {}
    if wanted & set(NAMES):
        entries = load_phrases(config.phrases).rules
        for name in get_args(PhraseRuleName):
            own = [entry for entry in entries if entry.rule == name]
            if own and name in wanted:
                rules[name] = phrase_rule(own)
    return rules | {name: rule for name, rule in _CODE.items() if name in wanted}


def _found(rules: Mapping[str, Rule], candidate: Candidate) -> Iterator[tuple[str, str]]:
    if not rules:
        return
    view = View.of(candidate)
    for name, rule in rules.items():
        detail = rule(view)
        if detail:
            yield name, detail
