"""The card of a dataset that was given: its files and splits, and nothing it does not know."""

from __future__ import annotations

import msgspec
import yaml

from selfinstruct.steps.publishing.card_facts import Source
from selfinstruct.steps.publishing.hub_card import cell, held_out_said, metadata, table_of


class GivenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the card says.

    `files` maps config and split to rows; `own_split` says that the data came with a split for
    testing; `faulty` counts the rows left out as no whole records.
    """

    name: str
    license: str
    language: list[str]
    files: dict[str, dict[str, int]]
    sources: list[Source]
    faulty: int
    moved_to_train: int
    own_split: bool
    version: str


def given_card(facts: GivenFacts) -> str:
    """The whole README.md."""
    front = metadata(facts, ["other"], ["instruction-tuning", "selfinstruct"])
    counts = facts.files["default"]
    sources = [
        (cell(one.name) if one.name else "a private source", f"{one.examples:,}")
        for one in facts.sources
    ]
    splits = [
        (f"`{config}`", f"`{split}`", f"{count:,}")
        for config, found in facts.files.items()
        for split, count in found.items()
    ]
    left_out = f" {facts.faulty:,} rows were no whole records and were left out." * (
        facts.faulty > 0
    )
    drawn = (
        "The held-out split is the one that the data came with."
        if facts.own_split
        else held_out_said(facts.files, facts.moved_to_train)
    )
    licence = (
        "\n\nNo licence was chosen. Settle one before you pass the dataset on."
        if facts.license == "other"
        else ""
    )
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {facts.name}

{counts["train"]:,} records to train on and {counts.get("test", 0):,} held out, as they were given
to selfinstruct {facts.version}: nothing was generated and nothing was judged.{left_out}

{table_of(("source", "records"), sources)}

{table_of(("config", "split", "rows"), splits)}

- `default` has `instruction`, `input` (may be empty) and `output`, and `messages` for records of
  several turns, whose last question and answer stand in the other columns.
- `messages` has all records as conversations.

{drawn}{licence}
"""
