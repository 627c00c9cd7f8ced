"""Train: from the dataset folder to a student.

    outputs/<run>/student/
        adapter/        the LoRA adapter, with tokenizer and card (method lora)
        merged/         the student as one model, with tokenizer and card
        checkpoints/    only while training is under way
        training.json   what was done, last of all

A run that was stopped, kill -9 included, goes on from its last whole checkpoint with the same
command.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.money import from_dollars
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.engine.folder import RunFolder, write_atomically, write_json
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.training_bill import book_hours, book_tokens, hours_cost, session
from selfinstruct.steps.planning.outlook import Outlook, refuse
from selfinstruct.steps.planning.room import Room, find_room, is_sharded
from selfinstruct.steps.planning.speed import CALIBRATION_SECONDS
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.base import same_model
from selfinstruct.steps.training.card import StudentFacts, student_card
from selfinstruct.steps.training.checkpoints import Clock, read_clock, remove_torn, writing
from selfinstruct.steps.training.held_out import HeldOut, choose_held_out
from selfinstruct.steps.training.inputs import Inputs
from selfinstruct.steps.training.later import Stage, go_on, plan_stages
from selfinstruct.steps.training.masks import Shown, show
from selfinstruct.steps.training.measures import spread
from selfinstruct.steps.training.outcome import summarize
from selfinstruct.steps.training.plan import Plan, is_main_process, process_count, share_of
from selfinstruct.steps.training.progress import OnProgress
from selfinstruct.steps.training.results import whole, write_student
from selfinstruct.steps.training.runtime import (
    check_packages,
    free_memory,
    prepare_process,
    quiet,
    use_all_cores,
)
from selfinstruct.steps.training.summary import SUMMARY, TrainSummary, parse_summary
from selfinstruct.steps.training.trackers import check_trackers
from selfinstruct.steps.training.trainer import SUPERVISED, fit
from selfinstruct.steps.training.watch import Aside

# Seconds for which the processor is timed before a training; asked for alone, the plan takes more.
CALIBRATION = 0.1
# Settings that the cards name where they are not the usual ones.
CHANGED_SETTINGS = (
    "decay_ratio", "min_learning_rate_ratio", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip


def train_student(
    folder: RunFolder, *, force: bool = False, on_progress: OnProgress | None = None
) -> TrainSummary:
    """Fine-tune the recipe's student on the run's training records.

    Args:
        folder: a run folder with a dataset, locked by the caller.
        force: train again although the student is up to date.
        on_progress: called after each step.

    Raises a `UserError` for what the user can mend (no dataset, no such base, a loss that is no
    longer a number, ...) and `SelfInstructError` where the merged model differs from the adapter.
    """
    check_packages("training a student")
    prepare_process()
    recipe = folder.recipe()
    with quiet():
        work = _Training(folder, recipe)
        summary = read_summary(folder)
        if force or summary is None or summary.fingerprint != work.done_mark:
            summary = work.run(force, on_progress)
        elif summary.base != work.inputs.base.name:
            summary = work.moved(summary)
        if is_main_process():
            _write_cards(folder, recipe, work.config, summary)
        return summary


def check_student(folder: RunFolder, processes: int) -> None:
    """Raise once what each of `processes` would raise: no such base, a batch that is not shared."""
    check_packages("training a student")
    with quiet():
        share_of(_Training(folder, folder.recipe()).config.batch_size, processes)


def plan_student(
    folder: RunFolder,
    recipe: Recipe | None = None,
    *,
    processes: int = 1,
    sharded: bool = False,
) -> Outlook:
    """What training the recipe's student would take, without loading or changing anything.

    Args:
        folder: a run folder with a dataset.
        recipe: another than the run's, for its student.
        processes: that share the work, one a GPU.
        sharded: whether they split the model among them.
    """
    check_packages("planning a training")
    prepare_process()
    with quiet():
        work = _Training(folder, recipe or folder.recipe())
        use_all_cores()
        room = find_room(work.inputs.device, processes, sharded=sharded)
        return work.inputs.outlook(room, CALIBRATION_SECONDS)


def shown_masks(folder: RunFolder, count: int, recipe: Recipe | None = None) -> list[Shown]:
    """Training examples as the student meets them, `count` evenly spread, with what is learned.

    With `recipe`, by its student's settings instead of the run's.
    """
    check_packages("showing what is learned")
    with quiet():
        inputs = _Training(folder, recipe or folder.recipe()).inputs
        kept = inputs.lessons.examples.kept
        return [show(kept[at], inputs.form.tokenizer) for at in spread(len(kept), count)]


def read_summary(folder: RunFolder) -> TrainSummary | None:
    """What training left behind, or None where it is missing, incomplete or of another version."""
    summary = parse_summary(folder.read_json(folder.student / SUMMARY))
    if summary is None:
        return None
    parts = [part for part in (summary.adapter, summary.merged) if part is not None]
    return summary if all((folder.path / part).is_dir() for part in parts) else None


class _Training:
    """One training of a run: what it starts from, and the mark that says whether it was done."""

    def __init__(self, folder: RunFolder, recipe: Recipe) -> None:
        self.began = time.monotonic()
        self.folder = folder
        self.recipe = recipe
        self.config: StudentConfig = recipe.need_student()
        self.checkpoints = folder.student / "checkpoints"
        self.inputs = Inputs(
            self.config,
            folder.dataset,
            Policy.of(recipe.privacy, recipe.allow_hosts),
            system=recipe.dataset.system_prompt,
            seed=recipe.seed,
        )
        self.mark = self.inputs.mark
        self.done_mark = fingerprint([self.mark, self.config.merge])

    def run(self, force: bool, on_progress: OnProgress | None) -> TrainSummary:
        """Train, write the student and the summary, and book what it took."""
        inputs = self.inputs
        _ = inputs.lessons  # what is wrong with the records is told first
        held_out = self._held_out()
        use_all_cores()
        room = find_room(inputs.device, process_count(), sharded=is_sharded())
        outlook = inputs.outlook(room, CALIBRATION)
        refuse(outlook, inputs.base.name)
        plan = inputs.settled(outlook)
        stages = self._stages(plan, room)
        aside = Aside(
            outlook=outlook,
            hour_price=from_dollars(self.config.gpu_hour_price),
            held_out=held_out,
            report_to=self._trackers(),
            name=self.recipe.name,
        )
        if not is_main_process():  # one process of several writes the results
            return self._train(plan, stages, 0.0, aside, None)
        ledger = Ledger(self.folder.db_path)
        with writing(self.folder.student), ledger, session(ledger):
            before = self._clear(ledger, force)
            aside = msgspec.structs.replace(aside, kwh=before.kwh)
            summary = self._train(plan, stages, before.seconds, aside, on_progress)
            book_hours(ledger, "this machine", summary.seconds, self.config.gpu_hour_price)
            book_tokens(ledger, summary.tokens)
            write_json(self.folder.student / SUMMARY, msgspec.to_builtins(summary))
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        return summary

    def moved(self, summary: TrainSummary) -> TrainSummary:
        """The summary with the base as it is named now: its files, by the mark, are the same."""
        base = self.inputs.base
        summary = msgspec.structs.replace(
            summary,
            base=base.name,
            base_hub_id=base.hub_id,
            base_license=base.license,
            base_commit=base.commit,
        )
        if is_main_process():
            write_json(self.folder.student / SUMMARY, msgspec.to_builtins(summary))
        return summary

    def _held_out(self) -> HeldOut | None:
        """What is measured during training. Raises `FolderError` without held-out records."""
        every, inputs = self.config.eval_steps, self.inputs
        if every is None:
            return None
        return choose_held_out(
            self.folder.dataset,
            inputs.form,
            inputs.lessons.max_length,
            self.recipe.evaluate,
            every=every,
            patience=self.config.early_stopping_patience,
            # Generating would gather a split model's weights anew for each token.
            sampled=not is_sharded(),
        )

    def _trackers(self) -> list[str]:
        check_trackers(self.config.report_to, local=self.recipe.is_local)
        return list(self.config.report_to) if is_main_process() else []

    def _clear(self, ledger: Ledger, force: bool) -> Clock:
        """Remove what cannot be continued; the time that went into what can."""
        clock = read_clock(self.checkpoints)
        if clock is not None and clock.fingerprint == self.mark and not force:
            remove_torn(self.checkpoints, self.mark)
            return clock
        if clock is not None:
            price = self.config.gpu_hour_price
            book_hours(ledger, "this machine, training given up", clock.seconds, price)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        return Clock(self.mark, 0.0)

    def _stages(self, plan: Plan, room: Room) -> list[Stage]:
        """The trainings after fine-tuning. Raises `RecipeError` for what they cannot be."""
        inputs = self.inputs
        found = plan_stages(self.config, inputs.data, inputs.form, inputs.lessons, plan)
        if found and room.sharded:
            raise RecipeError(
                f"student.{found[0].kind}: needs the whole model in each process, and this launch "
                "splits it among them; leave it out, or launch without sharding"
            )
        return found

    def _train(
        self,
        plan: Plan,
        stages: list[Stage],
        before: float,
        aside: Aside,
        on_progress: OnProgress | None,
    ) -> TrainSummary:
        """Fine-tune, go on with `stages`, and write the student.

        Args:
            plan: how; what the loaded model cannot do is taken out of it.
            stages: the trainings after fine-tuning.
            before: seconds of earlier sessions.
            aside: what goes along.
            on_progress: called after each step.
        """

        def clock() -> float:
            return before + time.monotonic() - self.began

        inputs = self.inputs
        tokenizer = inputs.form.tokenizer
        model, plan, notes = inputs.load(plan)
        model, fitted = fit(
            model,
            tokenizer,
            inputs.lessons.examples.kept,
            plan,
            self.checkpoints,
            self.mark,
            clock,
            on_progress,
            build=SUPERVISED["encoder-decoder" if inputs.form.encoder else "causal"],
            aside=aside,
        )
        goes_on = msgspec.structs.replace(aside, kwh=fitted.kwh)
        model, later = go_on(
            model, tokenizer, stages, self.checkpoints, self.mark, clock, on_progress, goes_on
        )
        assert aside.outlook is not None  # noqa: S101 (every training has its plan)
        merged_dtype = None
        if is_main_process():
            merged_dtype = self._write(model, fitted.saved, aside.outlook)
        return summarize(
            inputs,
            fitted,
            outlook=aside.outlook,
            hour_price=aside.hour_price,
            merged_dtype=merged_dtype,
            later=later,
            notes=[*notes, *(note for stage in stages for note in stage.notes)],
            seconds=clock(),
            fingerprint=self.done_mark,
        )

    def _write(self, model: Any, saved: Path | None, outlook: Outlook) -> str | None:
        """Write the student, put together in `saved` if processes shared it; its merged dtype."""
        inputs = self.inputs
        free_memory()
        if saved is not None:
            model = whole(inputs.base, self.config.method, saved)
        # Merging takes the float32 base, which may be more than the GPU that trained has.
        roomy = outlook.merging <= outlook.have
        return write_student(
            model,
            inputs.base,
            inputs.form,
            inputs.lessons.examples,
            self.folder.student,
            method=self.config.method,
            merged=self.config.merge,
            device=inputs.device if roomy else "cpu",
        )


def _write_cards(
    folder: RunFolder, recipe: Recipe, config: StudentConfig, summary: TrainSummary
) -> None:
    """Write the cards anew: they also tell settings that are not worth another training."""
    settings = ("epochs", "learning_rate", "scheduler", "batch_size", "optimizer")
    lora = ("lora_rank", "lora_alpha", "lora_dropout") if summary.method != "full" else ()
    unusual = config.model_dump(include=set(CHANGED_SETTINGS), exclude_defaults=True)
    teacher = recipe.local_teacher
    facts = StudentFacts(
        name=recipe.name,
        dataset_repo=recipe.publish.dataset_repo or "",
        dataset_license=recipe.dataset.license,
        settings={name: getattr(config, name) for name in (*settings, *lora)}
        | unusual
        | {"max_length": summary.max_length},
        cost=hours_cost(summary.seconds, config.gpu_hour_price),
        generated=recipe.teacher is not None,
        same_as_teacher=teacher is not None and same_model(teacher, summary.base),
        training=summary,
    )
    for part in (summary.adapter, summary.merged):
        if part is not None:
            card = student_card(facts, kind="adapter" if part == summary.adapter else "merged")
            write_atomically(folder.path / part / "README.md", card.encode())
