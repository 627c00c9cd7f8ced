"""The package's Python interface: a run and its stages.

    import selfinstruct

    run = selfinstruct.Run.from_recipe("recipes/quickstart.yaml")
    run.generate()
    run.write_dataset()
    run.train_student()

Every stage holds the run folder's lock and the recipe's privacy setting while it works. What waits
for calls has an async form (`agenerate`); the plain form also works inside a running event loop,
such as a notebook's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct.core.anchored import anchored
from selfinstruct.core.errors import FolderError, RecipeError
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.recipe_file import (
    RecipeLike,
    data_recipe,
    given_recipe,
    override_recipe,
    selection_recipe,
)
from selfinstruct.core.types import Passage, Record, SeedTask
from selfinstruct.engine.accounts import BillLine, Funnel, bill, funnel
from selfinstruct.engine.batch_admin import forget_batches, open_batches
from selfinstruct.engine.folder import RunFolder
from selfinstruct.engine.judging import Progress
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.loop import run_sync
from selfinstruct.engine.selection_folder import refuse_foreign
from selfinstruct.engine.spending import Spending, spending
from selfinstruct.stages import generate as generation
from selfinstruct.steps.privacy import Policy, enforce
from selfinstruct.steps.seeds.files import data_files

if TYPE_CHECKING:
    from selfinstruct.engine.dataset_folder import DatasetSummary
    from selfinstruct.engine.selection import Selection
    from selfinstruct.stages.compare import Comparison
    from selfinstruct.stages.evaluate import EvaluationSummary
    from selfinstruct.stages.export_student import Exported
    from selfinstruct.stages.publish import Published, PublishPlan
    from selfinstruct.stages.refilter import RefilterSummary
    from selfinstruct.steps.planning.outlook import Outlook
    from selfinstruct.steps.training.masks import Shown
    from selfinstruct.steps.training.summary import TrainSummary

OUTPUTS = Path("outputs")


class Run:
    """A run: its folder, and the stages that work on it.

    Args:
        path: a run folder that is there already; see `from_recipe` for a new one.

    Raises `FolderError` if there is no run at `path`.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(path)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @classmethod
    def from_recipe(
        cls,
        recipe: RecipeLike,
        *,
        overrides: Sequence[str] = (),
        output: str | Path | None = None,
    ) -> Run:
        """The run of a recipe, made or continued.

        Args:
            recipe: a recipe, a mapping, or the path of a YAML file.
            overrides: ``a.b=value`` settings that go before the file's.
            output: the run folder; ``outputs/<name>`` where not given.

        Raises `RecipeError`, or `FolderError` where `output` holds other files and no run.
        """
        recipe = anchored(given_recipe(recipe, overrides))
        folder = RunFolder(output or OUTPUTS / recipe.name)
        folder.refuse_foreign()
        with folder.lock():
            folder.save_recipe(recipe)
        return cls(folder.path)

    @classmethod
    def from_data(
        cls,
        data: str | Path | Sequence[str | Path],
        output: str | Path,
        recipe: RecipeLike | None = None,
        *,
        overrides: Sequence[str] = (),
    ) -> Run:
        """A run without a teacher, for a student on data that is there already.

        Args:
            data: JSON lines, JSON, CSV, Parquet, or a folder of them, or several of these: single
                tasks in any layout of seeds, or conversations.
            output: the run folder, new or of the same kind.
            recipe: the rest of the settings; its seeds and its teacher are left out. Those that
                the run has already where not given.
            overrides: ``student.base=...`` and the like.

        Raises `SeedError`, `RecipeError`, or `FolderError` where `output` is the run of a teacher
        or holds other files, or `data` is what this run wrote.
        """
        folder = RunFolder(output)
        folder.refuse_foreign()
        before = folder.recipe() if folder.recipe_path.is_file() else None
        if before is not None and before.teacher is not None:
            raise FolderError(
                f"{folder.path}: is a run with a teacher; give another folder for a student on "
                "data that is there already"
            )
        sources = [data] if isinstance(data, (str, Path)) else list(data)
        for source in sources:
            if folder.wrote(Path(source)):
                raise FolderError(
                    f"{source}: was written by this run, and would be written anew from itself; "
                    "give the data that it was made of, or another folder"
                )
        settings = before if recipe is None else recipe
        whole = data_recipe(sources, folder.path, settings, overrides)
        for source in sources:
            data_files(Path(source))  # a folder for what is not there would be one too many
        return cls.from_recipe(whole, output=output)

    def configure(self, *overrides: str) -> Recipe:
        """Change settings of the run (``a.b=value``) and return its recipe."""
        recipe = override_recipe(self.folder.recipe(), overrides)
        if overrides:
            recipe = anchored(recipe)
            with self.folder.lock():
                self.folder.save_recipe(recipe)
        return recipe

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.folder.recipe()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        recipe = self.folder.recipe()
        policy = Policy.of(recipe.privacy, recipe.allow_hosts)
        # Under torchrun all ranks work on the run together; the first one holds it.
        first = int(os.environ.get("RANK", "0")) == 0
        with self.folder.lock() if first else contextlib.nullcontext(), enforce(policy):
            yield

    # -- stages -------------------------------------------------------------------------------

    async def agenerate(self, on_start: generation.OnStart | None = None) -> Progress:
        """Generate records up to the recipe's target; see `stages.generate.generate`."""
        with self._at_work():
            return await generation.generate(self.folder, on_start)

    def generate(self, on_start: generation.OnStart | None = None) -> Progress:
        """`agenerate` for callers that do not await, inside an event loop or outside."""
        return run_sync(self.agenerate(on_start), private=self.recipe.is_local)

    def open_batches(self) -> dict[str, int]:
        """Requests that a provider's batch API may still be working on, by teacher."""
        with Ledger.read(self.folder.db_path) as ledger:
            return open_batches(ledger)

    async def acancel_batches(self) -> int:
        """Ask the provider to end its batches of this run; how many."""
        with self._at_work():
            return await generation.cancel_open_batches(self.folder)

    async def aforget_batches(self, teacher: str) -> int:
        """Give up batches that the provider has deleted; their requests are made anew."""
        with self._at_work(), Ledger(self.folder.db_path) as ledger:
            return await forget_batches(ledger, teacher)

    async def aselect(
        self,
        *,
        force: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
        on_stop: Callable[[Callable[[], None]], None] | None = None,
    ) -> Selection:
        """Select from the kept records; see `stages.select.select`."""
        from selfinstruct.stages.select import select

        with self._at_work():
            return await select(self.folder, force=force, on_progress=on_progress, on_stop=on_stop)

    def select(
        self, *, force: bool = False, on_progress: Callable[[str, int, int], None] | None = None
    ) -> Selection:
        """`aselect` for callers that do not await."""
        work = self.aselect(force=force, on_progress=on_progress)
        return run_sync(work, private=self.recipe.is_local)

    def refilter(self, *overrides: str, dry_run: bool = False) -> RefilterSummary:
        """Judge what is stored by other filters (``filters.a.b=value``); asks for nothing.

        With `dry_run`, only say what would change.
        """
        from selfinstruct.stages.refilter import refilter

        with self._at_work():
            recipe = override_recipe(self.folder.recipe(), overrides)
            return refilter(self.folder, recipe, dry_run=dry_run)

    def write_dataset(self, *, force: bool = False) -> DatasetSummary:
        """Write ``dataset/`` from the ledger, where it is not up to date.

        A recipe with a section `select` selects first, where that is not up to date. Without a
        teacher the dataset is what the recipe's seeds hold.
        """
        if self.recipe.teacher is None:
            from selfinstruct.stages.given import write_given

            with self._at_work():
                return write_given(self.folder, force=force)
        from selfinstruct.stages.dataset import write_dataset

        if self.recipe.select is not None:
            self.select()
        with self._at_work():
            return write_dataset(self.folder, force=force)

    def shown_masks(self, count: int, *overrides: str) -> list[Shown]:
        """Some of the training examples as text, with what of them is learned.

        `overrides` of the section student (``student.max_length=512``) count this once.
        """
        from selfinstruct.stages.train import shown_masks

        return shown_masks(self.folder, count, self._asked(overrides))

    def check_student(self, processes: int = 1) -> None:
        """Raise what `processes` would raise before they begin to train."""
        from selfinstruct.stages.train import check_student

        check_student(self.folder, processes)

    def plan_student(self, *overrides: str, processes: int = 1, sharded: bool = False) -> Outlook:
        """What training the student would take on this machine; loads no weights.

        `overrides` of the section student (``student.method=full``) count this once.
        """
        from selfinstruct.stages.train import plan_student

        recipe = self._asked(overrides)
        return plan_student(self.folder, recipe, processes=processes, sharded=sharded)

    def _asked(self, overrides: Sequence[str]) -> Recipe:
        """The recipe as a question puts it. Raises `RecipeError` for what changes the dataset."""
        for override in overrides:
            if not override.startswith("student"):
                raise RecipeError(
                    f"--set {override}: --plan and --show-masks change nothing, so they take "
                    "settings of student alone; give others without them first"
                )
        return override_recipe(self.folder.recipe(), overrides)

    def train_student(
        self, *, force: bool = False, on_progress: Callable[..., None] | None = None
    ) -> TrainSummary:
        """Fine-tune the recipe's student on ``dataset/``; continues where it was stopped."""
        from selfinstruct.stages.train import train_student

        with self._at_work():
            return train_student(self.folder, force=force, on_progress=on_progress)

    def evaluate(
        self, *, force: bool = False, on_progress: Callable[..., None] | None = None
    ) -> EvaluationSummary:
        """Measure base and student on the held-out records."""
        from selfinstruct.stages.evaluate import evaluate

        with self._at_work():
            return evaluate(self.folder, force=force, on_progress=on_progress)

    async def aexport_student(self, precision: str = "q8_0", **options: Any) -> Exported:
        """Write the student as a GGUF file; see `stages.export_student` for the options."""
        from selfinstruct.stages.export_student import export_student

        with self._at_work():
            return await export_student(self.folder, precision, **options)

    def export_student(self, precision: str = "q8_0", **options: Any) -> Exported:
        """`aexport_student` for callers that do not await."""
        return run_sync(self.aexport_student(precision, **options))

    def compare(self, other: str | Path) -> Comparison:
        """This run's kept records beside another run, or any dataset; writes nothing."""
        from selfinstruct.stages.compare import compare

        return compare(self.folder.path, Path(other))

    def report(self) -> Path:
        """Write ``report.html`` and return its path."""
        from selfinstruct.stages.report import write_report

        with self._at_work():
            return write_report(self.folder)

    def plan_publish(self, **options: Any) -> PublishPlan:
        """What publishing would send where, and what stands in its way; contacts nobody."""
        from selfinstruct.stages.publish import plan_publish

        return plan_publish(self.folder, **options)

    def publish(self, **options: Any) -> list[Published]:
        """Publish dataset and student; see `stages.publish.publish` for the options."""
        from selfinstruct.stages.publish import publish

        with self.folder.lock():  # it enforces the privacy setting itself, towards the Hub alone
            return publish(self.folder, **options)

    # -- what is in it ------------------------------------------------------------------------

    def seeds(self) -> list[SeedTask]:
        """The seed tasks the run works with."""
        with Ledger.read(self.folder.db_path) as ledger:
            return ledger.seeds()

    def passages(self) -> list[Passage]:
        """Every passage of documents that the run ever had."""
        with Ledger.read(self.folder.db_path) as ledger:
            return ledger.passages()

    def documents(self) -> str:
        """What was read of the recipe's documents and what was left out, in a line; "" for none."""
        with Ledger.read(self.folder.db_path) as ledger:
            return ledger.meta("documents") or ""

    def records(self, kept: bool | None = True) -> list[Record]:
        """The kept records; all candidates with `kept` None, the rejected ones with False."""
        with Ledger.read(self.folder.db_path) as ledger:
            return list(ledger.records(kept))

    def funnel(self) -> Funnel:
        """What came in and what became of it."""
        with Ledger.read(self.folder.db_path) as ledger:
            return funnel(ledger)

    def bill(self) -> list[BillLine]:
        """What the run cost so far."""
        with Ledger.read(self.folder.db_path) as ledger:
            return bill(ledger)

    def spending(self) -> Spending:
        """Where the money of the calls went, by strategy and by verdict."""
        with Ledger.read(self.folder.db_path) as ledger:
            return spending(ledger)


def generate(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
) -> Run:
    """Generate the recipe's records and write the dataset; returns the run."""
    run = Run.from_recipe(recipe, overrides=overrides, output=output)
    run.generate()
    run.write_dataset()
    return run


async def aselect_dataset(
    path: str | Path,
    output: str | Path,
    recipe: RecipeLike | None = None,
    *,
    overrides: Sequence[str] = (),
    force: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_stop: Callable[[Callable[[], None]], None] | None = None,
) -> Selection:
    """`select_dataset` for callers that await."""
    from selfinstruct.stages.select import select_from_dataset

    settings = selection_recipe(path, recipe, overrides)
    folder = RunFolder(output)
    refuse_foreign(folder.path)
    with folder.lock(), enforce(Policy.of(settings.privacy, settings.allow_hosts)):
        return await select_from_dataset(
            Path(path),
            folder.path,
            settings,
            force=force,
            on_progress=on_progress,
            on_stop=on_stop,
        )


def select_dataset(
    path: str | Path,
    output: str | Path,
    recipe: RecipeLike | None = None,
    *,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Selection:
    """Select from a dataset that is no run, into the folder `output`.

    Args:
        path: JSON lines, JSON, CSV, Parquet, or a folder of them.
        output: a new folder, or that of an earlier selection, whose scores are used again.
        recipe: has a section `select`; nothing else of it is needed where no teacher is asked.
        overrides: ``select.count=1000`` and the like.

    Raises `RecipeError` without a section `select`, `SeedError` or `FolderError`.
    """
    return run_sync(aselect_dataset(path, output, recipe, overrides=overrides, force=force))


def train_student(run: Run | str | Path, *overrides: str, force: bool = False) -> TrainSummary:
    """Fine-tune a student on a run's dataset, with settings such as ``student.epochs=1``."""
    run = run if isinstance(run, Run) else Run(run)
    run.configure(*overrides)
    return run.train_student(force=force)


def evaluate(run: Run | str | Path, *, force: bool = False) -> EvaluationSummary:
    """Measure a run's base and student on its held-out records."""
    run = run if isinstance(run, Run) else Run(run)
    return run.evaluate(force=force)
