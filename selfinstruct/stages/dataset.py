"""Dataset: from the ledger to a folder that `datasets` loads and the Hub shows. See
`engine.dataset_folder` for its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfinstruct import __version__
from selfinstruct.core.errors import FolderError, UserError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Candidate, Record, SeedTask
from selfinstruct.engine.accounts import BEYOND_TARGET, SCORE, Funnel, bill, funnel
from selfinstruct.engine.dataset_folder import (
    DatasetSummary,
    checksums,
    read_summary,
    write_folder,
    write_splits,
)
from selfinstruct.engine.folder import RunFolder, write_atomically
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.selection import Standing, selection_mark
from selfinstruct.engine.selection_folder import PREFIX, current_selection
from selfinstruct.steps import splits, tables
from selfinstruct.steps.publishing import card_facts
from selfinstruct.steps.publishing.hub_card import dataset_card, split_file
from selfinstruct.steps.selection.in_words import in_words
from selfinstruct.steps.tables import Row

FORMAT = 1  # raise it when the same records are to be written differently
GENERATE = "generate"  # the bill's name for what the records cost
SAMPLES = 3

_encode = msgspec.json.Encoder().encode


def write_dataset(folder: RunFolder, *, force: bool = False) -> DatasetSummary:
    """Write the run's dataset folder, or leave it where it is up to date.

    Args:
        folder: a run folder, locked by the caller.
        force: write it even if it is up to date.

    Raises `FolderError` if the run has kept nothing yet, its selection is not up to date, or the
    folder cannot be written.
    """
    with Ledger.read(folder.db_path) as ledger:
        run = _Run(folder, ledger)
        return write_folder(folder, run.marks, run.write, force=force)


def export(
    folder: RunFolder,
    fmt: str,
    out: Path,
    *,
    split: Literal["train", "test", "all"] = "train",
) -> int:
    """Write a split of the dataset to the file `out` in another format; returns its records.

    `fmt` is one of `tables.EXPORTS`. Raises `UserError` for another format, `FolderError` where
    there is no dataset, no such split, or `out` cannot be written.
    """
    if fmt not in tables.EXPORTS:
        raise UserError(f"{fmt!r} is no export format; known are {', '.join(tables.EXPORTS)}")
    if read_summary(folder) is None:
        raise FolderError(f"{folder.dataset}: no dataset here; run: selfinstruct export")
    names = ("train", "test") if split == "all" else (split,)
    paths = [folder.dataset / split_file("default", name) for name in names]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise FolderError(f"{folder.dataset}: nothing is held out, so there is no test split")
    rows = [row for path in found for row in tables.read_parquet(path)]
    if fmt in tables.SINGLE and any(row.get(tables.MESSAGES) for row in rows):
        others = ", ".join(name for name in tables.EXPORTS if name not in tables.SINGLE)
        raise UserError(f"conversations of several turns do not fit {fmt}; export as {others}")
    try:
        write_atomically(out, tables.EXPORTS[fmt](rows, folder.recipe().dataset.system_prompt))
    except OSError as error:
        raise FolderError(f"{out}: cannot be written ({error.strerror or error})") from error
    return len(rows)


class _Run:
    """What one write reads: the recipe, the ledger and the seeds."""

    def __init__(self, folder: RunFolder, ledger: Ledger) -> None:
        self.recipe: Recipe = folder.recipe()
        self.ledger = ledger
        self.seeds: list[SeedTask] = ledger.seeds()
        self.passages = ledger.passages()
        self.texts = {passage.id: passage.text for passage in self.passages}
        self.humans = self.seeds if self.recipe.dataset.include_seeds else []
        self.funnel = funnel(ledger)
        if not self.funnel.kept:
            raise FolderError(
                f"{folder.path}: no record was kept yet, so there is no dataset to write; "
                "run: selfinstruct generate"
            )
        self.selection = self._selection(folder)
        self.told: dict[str, Any] = {
            "name": self.recipe.name,
            "sources": card_facts.sources(self.seeds),
            "funnel": _funnel_steps(self.funnel, self.selection),
            "rejected": self.funnel.rejected,
            "costs": _costs(ledger),
            "checks": _checks(self.recipe.filters, bool(self.passages))
            + in_words(self.recipe.select),
            "version": __version__,
        }
        self.marks = (self._data_mark(), fingerprint(self.told))

    def _data_mark(self) -> str:
        """The fingerprint of the settings and records behind the data."""
        digest = hashlib.sha256()
        for record in self.ledger.records():
            digest.update(_encode(record))
        settings = self.recipe.dataset.model_dump(mode="json")
        humans = [tables.seed_row(seed) for seed in self.humans]
        chosen = [] if self.selection is None else [self.selection]
        return fingerprint([FORMAT, settings, humans, digest.hexdigest(), *chosen])

    def _selection(self, folder: RunFolder) -> dict[str, Standing] | None:
        """The selected records by id, where the recipe selects. Raises `FolderError` if stale."""
        config = self.recipe.select
        if config is None:
            return None
        tasks = (record.candidate for record in self.ledger.records(kept=True))
        mark = selection_mark(config, self.recipe.teacher, self.recipe.seed, tasks)
        return current_selection(folder, mark, config)

    def _row(self, record: Record) -> Row:
        """A kept record's row, with its scores where there are any."""
        row = tables.record_row(record) | self._open_book(record.candidate)
        if self.selection is not None:
            scores = self.selection[record.candidate.id].scores
            row |= {f"{PREFIX}{name}": value for name, value in scores.items()}
        return row

    def _open_book(self, candidate: Candidate) -> Row:
        """The passage as input, for the share of the records that the recipe gives it."""
        text = next((self.texts[one] for one in candidate.parents if one in self.texts), "")
        wanted = splits.drawn(candidate.id, self.recipe.dataset.open_book, "open-book")
        return {"input": text} if text and wanted and not candidate.input else {}

    def _score_columns(self) -> list[str]:
        first = next(iter((self.selection or {}).values()), None)
        return [] if first is None else [f"{PREFIX}{name}" for name in first.scores]

    def _rejects(self) -> Iterator[Row]:
        for record in self.ledger.records(kept=False):
            if record.verdict.reason != BEYOND_TARGET:
                yield tables.rejected_row(record)

    def write(self, new: Path) -> DatasetSummary:
        """Write all but the summary into the empty folder `new`."""
        kept = list(self.ledger.records(kept=True))
        if self.selection is not None:
            kept = [record for record in kept if record.candidate.id in self.selection]
        parts = _split(kept, self.humans, self.recipe.dataset.held_out)
        rows = {record.candidate.id: self._row(record) for record in kept}
        train = [tables.seed_row(seed) for seed in self.humans]
        train += [rows[name] for name in parts.train]
        data = {"train": train, "test": [rows[name] for name in parts.held_out]}
        filled = {name: found for name, found in data.items() if found}
        system = self.recipe.dataset.system_prompt
        files = write_splits(new, filled, system, self._score_columns())
        if self.funnel.rejected:  # `datasets` cannot load a split of no rows
            path = new / split_file("rejected", "train")
            count = tables.write_parquet(path, "rejected", self._rejects())
            files["rejected"] = {"train": count}
        facts = card_facts.DatasetFacts(
            **self.told,
            license=self.recipe.dataset.license,
            language=self.recipe.dataset.language,
            files=files,
            human=len(self.humans),
            moved_to_train=parts.moved_to_train,
            writers=card_facts.writers(kept),
            documents=card_facts.documents(
                self.passages, {parent for record in kept for parent in record.candidate.parents}
            ),
            samples=[
                {name: rows[record][name] for name in tables.TEXT_COLUMNS}
                for record in parts.train[:SAMPLES]  # never a human example: it may be private
            ],
            system_prompt=bool(self.recipe.dataset.system_prompt),
        )
        (new / "README.md").write_bytes(dataset_card(facts).encode())
        return DatasetSummary(
            train=len(train),
            held_out=len(parts.held_out),
            rejected=sum(files.get("rejected", {}).values()),
            beyond_target=self.funnel.beyond_target,
            moved_to_train=parts.moved_to_train,
            human=len(self.humans),
            seeds=len(self.seeds),
            private_seeds=sum(seed.private for seed in self.seeds),
            license=self.recipe.dataset.license,
            fingerprint=self.marks[0],
            card=self.marks[1],
            not_selected=self.funnel.kept - len(kept),
            files=checksums(new),
        )


def _split(kept: list[Record], humans: list[SeedTask], share: float) -> splits.Split:
    items = [
        splits.Item(c.id, splits.text_of(c.instruction, c.input))
        for c in (record.candidate for record in kept)
    ]
    human_texts = [splits.text_of(seed.instruction, seed.input) for seed in humans]
    return splits.split(items, share, splits.near_filters, human_texts)


# -- what the card tells ---------------------------------------------------------------------------


def _funnel_steps(f: Funnel, selection: Mapping[str, Standing] | None) -> list[tuple[str, int]]:
    steps = [
        ("requests to the teacher", f.requests),
        ("completions", f.completions),
        ("of them refused by the teacher", f.refused),
        ("of them failed after retries", f.failed),
        ("of them not needed so far", f.unjudged),
        ("candidates in them", f.candidates),
        ("rejected", sum(f.rejected.values())),
        ("over the target, not looked at", f.beyond_target),
        ("kept", f.kept),
    ]
    return steps if selection is None else [*steps, ("of them selected", len(selection))]


def _costs(ledger: Ledger) -> list[card_facts.Cost]:
    return [
        card_facts.Cost(line.item, line.quantity, line.unit, line.cost, line.estimated)
        for line in bill(ledger)
        if line.stage in (GENERATE, SCORE)
    ]


def _checks(filters: FiltersConfig, from_documents: bool) -> list[str]:
    """The filters that were on, in their order, in words."""
    rouge, minhash, semantic = filters.rouge, filters.minhash, filters.semantic
    rejecting = [
        rule.replace("_", " ")
        for rule, action in filters.rules.actions.items()
        if action == "reject"
    ]
    checks = [
        (True, f"an instruction of {filters.min_words} to {filters.max_words} words"),
        (filters.wording.enabled, f"the wording rules of `{Path(filters.wording.rules).name}`"),
        (bool(rejecting), f"no fault of these kinds: {', '.join(rejecting)}"),
        (filters.copied, "not a copy of an example that its prompt showed"),
        (
            filters.grounded.enabled and from_documents,
            "borne out by the passage it was written from: at least "
            f"{filters.grounded.precision:.0%} of the answer's words"
            + (", and its figures" if filters.grounded.figures else ""),
        ),
        (filters.conflicting, "not an instruction and input kept before with another output"),
        (
            rouge.enabled,
            f"novelty: ROUGE-L of the {rouge.field} at most {rouge.threshold:g} against every "
            "human example and every record kept before",
        ),
        (
            minhash.enabled,
            f"no near-duplicate: Jaccard similarity of word {minhash.ngram}-grams over "
            f"instruction, input and output below {minhash.threshold:g} against all of these",
        ),
        (
            semantic.enabled,
            "not the same in other words: cosine of embeddings of instruction and input below "
            f"{semantic.threshold:g} against all of these",
        ),
    ]
    return [said for enabled, said in checks if enabled]
