"""Select: which of the kept records go into the dataset, and why the others do not.

    outputs/<run>/selection/     see `engine.selection`; the dataset stage reads it

For a dataset that is no run, the folder given as output holds the same two files, a ledger with
what scores cost, and the selected rows as they were, with their scores, under data/.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import orjson

from selfinstruct.core.errors import FolderError, Interrupted, RecipeError, UserError
from selfinstruct.core.money import from_dollars
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.accounts import spent_at_most
from selfinstruct.engine.budget import Budget
from selfinstruct.engine.folder import RunFolder, write_atomically
from selfinstruct.engine.judge_calls import STAGE, JudgeCalls
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.routes import Routes
from selfinstruct.engine.scoring import ModelScores, session
from selfinstruct.engine.selection import (
    Selection,
    Standing,
    is_current,
    selection_mark,
    summed_up,
)
from selfinstruct.engine.selection_folder import PREFIX, read_selection, write_selection
from selfinstruct.engine.sketch_book import SketchBook
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.scores.judge import asked_for
from selfinstruct.steps.scores.lexical import LEXICAL
from selfinstruct.steps.selection.choose import chosen_of, needs_vectors
from selfinstruct.steps.selection.methods import tally
from selfinstruct.steps.selection.rows import Read, read_dataset
from selfinstruct.steps.swap import replacing

ROWS = Path("data") / "train-00000-of-00001.jsonl"  # where `datasets` looks for a train split
FAULTS_TOLD = 5

Result = TypeVar("Result")
Task = Candidate | SeedTask
Scores = dict[str, list[float | None]]
OnProgress = Callable[[str, int, int], None]
"""Called with what is worked out, how much of it is done, and of how much."""
OnStop = Callable[[Callable[[], None]], None]
"""Given a function that stops the selection after the calls in flight."""


async def select(
    folder: RunFolder,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
    on_stop: OnStop | None = None,
) -> Selection:
    """Select from the run's kept records by its recipe's section `select`.

    Args:
        folder: a run folder, locked by the caller.
        force: do it even if the selection is up to date; scores that are there stay in use.
        on_progress: told of scores that take long.
        on_stop: given what stops a judge.

    Raises `FolderError` where the recipe has no such section or nothing was kept, `UserError` where
    no record would be selected; a judge may raise `CapReached`, `TeacherError` or `Interrupted`.
    """
    recipe = folder.recipe()
    config = recipe.select
    if config is None:
        raise FolderError(
            f"{folder.recipe_path}: has no section select; give one, such as "
            "--set 'select={method: random, count: 1000}'"
        )
    with Ledger.read(folder.db_path) as ledger:
        tasks: list[Task] = [record.candidate for record in ledger.records(kept=True)]
    if not tasks:
        raise FolderError(
            f"{folder.path}: no record was kept yet, so there is nothing to select from; "
            "run: selfinstruct generate"
        )
    mark = selection_mark(config, recipe.teacher, recipe.seed, tasks)
    done = None if force else read_selection(folder.selection)
    if done is not None and is_current(done, mark, config):
        return done
    work = _Work(recipe, config, tasks, folder.db_path, on_progress, on_stop)
    summary, standings = await work.choose(mark)
    try:
        with replacing(folder.selection) as new:
            write_selection(new, summary, standings, work.names)
    except OSError as error:
        raise _cannot_write(folder.selection, error) from error
    return summary


async def select_from_dataset(
    path: Path,
    out: Path,
    recipe: Recipe,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
    on_stop: OnStop | None = None,
) -> Selection:
    """Select from the dataset at `path` into the folder `out`.

    Args:
        path: a file or folder that `steps.selection.rows` reads.
        out: a folder that is new, or was made by an earlier selection; locked by the caller.
        recipe: its section `select` is what counts.

    Raises `SeedError` for a dataset that cannot be read, `FolderError` where `out` cannot be used.
    """
    config = recipe.select
    assert config is not None  # noqa: S101 (the caller has put it there)
    read = read_dataset(path)
    tasks: list[Task] = [*read.tasks]
    mark = selection_mark(config, recipe.teacher, recipe.seed, tasks)
    done = None if force else read_selection(out)
    if done is not None and is_current(done, mark, config) and (out / ROWS).is_file():
        return done
    work = _Work(recipe, config, tasks, out / "run.db", on_progress, on_stop)
    summary, standings = await work.choose(mark)
    told = read.faults[:FAULTS_TOLD]
    summary = msgspec.structs.replace(summary, faulty=len(read.faults), faults=told)
    try:
        write_atomically(out / ROWS, _chosen_rows(read, standings))
        write_selection(out, summary, standings, work.names)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return summary


class _Work:
    """One selection."""

    def __init__(
        self,
        recipe: Recipe,
        config: SelectConfig,
        tasks: list[Task],
        db_path: Path,
        on_progress: OnProgress | None,
        on_stop: OnStop | None,
    ) -> None:
        self._recipe = recipe
        self._config = config
        self._policy = Policy.of(recipe.privacy, recipe.allow_hosts)
        self._tasks = tasks
        self._db_path = db_path
        self._on_progress = on_progress
        self._stopping = threading.Event()
        self._on_stop = on_stop or (lambda stop: None)
        self.names: list[str] = [*config.score_names]

    def _tell(self, name: str, done: int, total: int) -> None:
        """Say how far the work is. Raises `Interrupted` where it is to stop."""
        if self._on_progress is not None:
            self._on_progress(name, done, total)
        if self._stopping.is_set() and done < total:
            raise Interrupted("stopped; what was worked out is kept, the same command continues")

    async def _aside(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, in a thread, so that Ctrl-C is heard while it computes."""
        self._on_stop(self._stopping.set)
        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            self._stopping.set()  # or the thread would go on to the end
            raise

    async def choose(self, mark: str) -> tuple[Selection, list[Standing]]:
        """Work out the scores, choose, and say what became of each record."""
        recipe, config = self._recipe, self._config
        with self._ledger() as ledger:
            scores = await self._scores(ledger)
            book = None if ledger is None else SketchBook(ledger)
            choice, groups = await self._aside(
                lambda: chosen_of(
                    self._tasks, scores, config, recipe.seed, self._policy, self._tell, book
                )
            )
        if not choice.chosen:
            why = ", ".join(f"{reason} {n}" for reason, n in tally(choice.reasons).items())
            raise UserError(f"select: no record was selected ({why}); change the section select")
        return summed_up(
            config, self._tasks, {name: scores[name] for name in self.names}, choice, groups, mark
        )

    @contextmanager
    def _ledger(self) -> Iterator[Ledger | None]:
        """What keeps scores and embeddings, open for writing; None where there are none to keep."""
        if all(name in LEXICAL for name in self.names) and not needs_vectors(self._config):
            yield None
            return
        self._db_path.parent.mkdir(parents=True, exist_ok=True)
        with Ledger(self._db_path) as ledger, session(ledger, STAGE):
            yield ledger

    async def _scores(self, ledger: Ledger | None) -> Scores:
        found: Scores = {
            name: [LEXICAL[name](task) for task in self._tasks]
            for name in self.names
            if name in LEXICAL
        }
        if ledger is not None:
            models = ModelScores(self._config, self._policy, ledger, self._tasks)
            found |= await self._aside(lambda: models.scores(self.names, self._tell))
            found |= await self._judged(ledger)
        return found

    async def _judged(self, ledger: Ledger) -> Scores:
        """The judge's scores; no teacher is needed where there are none."""
        if not asked_for(self.names):
            return {}
        recipe, judge = self._recipe, self._config.judge
        teacher = judge.teacher or recipe.teacher
        if teacher is None:
            raise RecipeError(
                "select.judge.teacher is missing: name the judge, or give a recipe with a teacher "
                "by --recipe"
            )
        routes = Routes(
            teacher,
            None,
            policy=self._policy,
            prices=recipe.prices,
            no_price=recipe.generate.no_price,
            private=recipe.sealed_sources,
        )
        cap = recipe.generate.max_cost
        budget = Budget(None if cap is None else from_dollars(cap), spent_at_most(ledger))
        calls = JudgeCalls(ledger, budget, routes, teacher, judge)
        self._on_stop(calls.stop)
        try:
            return await calls.scores(self.names, self._tasks, self._tell)
        finally:
            await routes.close()


def _chosen_rows(read: Read, standings: Sequence[Standing]) -> bytes:
    """The selected rows as JSON lines in their own order, each with its scores."""
    lines = []
    for row, standing in zip(read.rows, standings, strict=True):
        if standing.rank:
            scores = {f"{PREFIX}{name}": value for name, value in standing.scores.items()}
            lines.append(orjson.dumps(row | scores, default=str) + b"\n")
    return b"".join(lines)


def _cannot_write(path: Path, error: OSError) -> FolderError:
    return FolderError(f"{path}: cannot be written ({error.strerror or error})")
