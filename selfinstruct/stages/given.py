"""Given: the dataset folder of a run without a teacher, from data that is there already.

The rows of the recipe's seeds are the dataset as they are: nothing is judged, and nothing but a row
that is no whole record is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from selfinstruct import __version__
from selfinstruct.core.errors import FolderError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import SeedTask
from selfinstruct.engine.dataset_folder import (
    DatasetSummary,
    checksums,
    write_folder,
    write_splits,
)
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps import splits, tables
from selfinstruct.steps.publishing import card_facts
from selfinstruct.steps.publishing.given_card import GivenFacts, given_card
from selfinstruct.steps.seeds.given import Given, GivenData, read_given

FORMAT = 2  # raise it when the same rows are to be written differently
FAULTS_TOLD = 20
READ = "given"  # the ledger's fact of which data its seeds are


def write_given(folder: RunFolder, *, force: bool = False) -> DatasetSummary:
    """Write the dataset folder of a run without a teacher, or leave it where it is up to date.

    Args:
        folder: a run folder, locked by the caller.
        force: write it even if it is up to date.

    Raises `SeedError` for data that cannot be read, `FolderError` if the folder cannot be written.
    """
    run = _Given(folder.recipe())
    with Ledger(folder.db_path) as ledger:
        if ledger.meta(READ) != run.marks[0]:
            ledger.set_seeds(run.seeds())
            ledger.set_meta(READ, run.marks[0])
    return write_folder(folder, run.marks, run.write, force=force)


class _Given:
    """What one write reads: the recipe and the data."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        if recipe.select is not None:
            raise FolderError(
                "select chooses among records that a teacher wrote, and this recipe names none; "
                "choose from the data itself first: selfinstruct select DATA"
            )
        self.data: GivenData = read_given(recipe.seeds)
        self.records = [*self.data.train, *self.data.held_out]
        facts = [FORMAT, recipe.dataset.model_dump(mode="json"), msgspec.to_builtins(self.data)]
        self.told: dict[str, Any] = {
            "name": recipe.name,
            "license": recipe.dataset.license,
            "language": recipe.dataset.language,
            "sources": card_facts.sources(self.records),
            "faulty": len(self.data.faults),
            "version": __version__,
        }
        self.marks = (fingerprint(facts), fingerprint(self.told))

    def seeds(self) -> list[SeedTask]:
        """The records as the ledger's seeds, where publishing looks for private ones."""
        return [
            SeedTask(
                id=one.id,
                instruction=one.instruction,
                input=one.input,
                output=one.output,
                category=one.category,
                source=one.source,
                private=one.private,
                turns=[turn["content"] for turn in one.messages or []],
            )
            for one in self.records
        ]

    def write(self, new: Path) -> DatasetSummary:
        """Write all but the summary into the empty folder `new`."""
        train, held_out, moved = self._split()
        data = {"train": [tables.given_row(record) for record in train]}
        if held_out:
            data["test"] = [tables.given_row(record) for record in held_out]
        talks = [tables.MESSAGES] if any(one.messages is not None for one in self.records) else []
        files = write_splits(new, data, self.recipe.dataset.system_prompt, talks)
        facts = GivenFacts(
            **self.told,
            files=files,
            moved_to_train=moved,
            own_split=bool(self.data.held_out),
        )
        (new / "README.md").write_bytes(given_card(facts).encode())
        return DatasetSummary(
            train=len(train),
            held_out=len(held_out),
            rejected=0,
            beyond_target=0,
            moved_to_train=moved,
            human=0,
            seeds=len(self.records),
            private_seeds=sum(one.private for one in self.records),
            license=self.recipe.dataset.license,
            fingerprint=self.marks[0],
            card=self.marks[1],
            faulty=len(self.data.faults),
            faults=self.data.faults[:FAULTS_TOLD],
            files=checksums(new),
        )

    def _split(self) -> tuple[list[Given], list[Given], int]:
        """Training and held-out records, and how many drawn ones were moved to training.

        Where the data has a split of its own for testing, that is held out as it is.
        """
        if self.data.held_out:
            return self.data.train, self.data.held_out, 0
        items = [splits.Item(one.id, _asked(one)) for one in self.data.train]
        parts = splits.split(items, self.recipe.dataset.held_out, splits.near_filters)
        held_out = set(parts.held_out)
        return (
            [one for one in self.data.train if one.id not in held_out],
            [one for one in self.data.train if one.id in held_out],
            parts.moved_to_train,
        )


def _asked(record: Given) -> str:
    """The text that must not be met in both splits: all that a user asks."""
    if record.messages is None:
        return splits.text_of(record.instruction, record.input)
    return "\n".join(turn["content"] for turn in record.messages if turn["role"] == "user")
