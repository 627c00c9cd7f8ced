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

import contextlib
import functools
import shutil
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.money import from_dollars
from selfinstruct.core.recipe import Recipe, StudentConfig
from selfinstruct.engine.folder import RunFolder, write_atomically, write_json
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.planning.model import measure_model
from selfinstruct.steps.planning.outlook import Job, Outlook, Room, foresee, refuse
from selfinstruct.steps.planning.room import find_room, is_sharded
from selfinstruct.steps.planning.speed import CALIBRATION_SECONDS
from selfinstruct.steps.planning.throughput import Throughput, Wanted, choose
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.swap import replacing
from selfinstruct.steps.training.adapters import add_adapter, load_adapter
from selfinstruct.steps.training.base import Base, find_base, same_model
from selfinstruct.steps.training.card import StudentFacts, student_card
from selfinstruct.steps.training.checkpoints import Clock, read_clock, remove_torn, writing
from selfinstruct.steps.training.export import CHECK_PROMPTS, merge, save_adapter, save_model
from selfinstruct.steps.training.format import Examples, StudentFormat
from selfinstruct.steps.training.held_out import HeldOut
from selfinstruct.steps.training.later import Data, Stage, go_on, plan_stages
from selfinstruct.steps.training.lessons import Lessons, prepare
from selfinstruct.steps.training.loading import (
    check_vocabulary,
    context_length,
    is_encoder_decoder,
    load_model,
    load_tokenizer,
    stored_dtype,
    use_liger,
)
from selfinstruct.steps.training.masks import Shown, show
from selfinstruct.steps.training.measures import spread
from selfinstruct.steps.training.outcome import summarize
from selfinstruct.steps.training.own_data import read_conversations, read_pairs
from selfinstruct.steps.training.packing import settle
from selfinstruct.steps.training.plan import Plan, arrange, is_main_process, process_count
from selfinstruct.steps.training.progress import OnProgress
from selfinstruct.steps.training.records import read_split
from selfinstruct.steps.training.runtime import (
    check_optimizer,
    check_packages,
    choose_device,
    compute_dtype,
    prepare_process,
    quiet,
    use_all_cores,
    weight_dtype,
)
from selfinstruct.steps.training.summary import (
    SUMMARY,
    TrainSummary,
    parse_summary,
)
from selfinstruct.steps.training.trackers import check_trackers
from selfinstruct.steps.training.trainer import SUPERVISED, Aside, fit

STAGE = "train"
FORMAT = 2  # raise it when the same settings and records are to give another student
# Settings that change what a training costs or leaves behind, not what the student learns.
NOT_LEARNED = ("base", "save_steps", "merge", "gpu_hour_price", "report_to", "dataloader_workers")
# Seconds for which the processor is timed before a training; asked for alone, the plan takes more.
CALIBRATION = 0.1


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
        if is_main_process():
            _write_cards(folder, recipe, work.config, summary)
        return summary


def plan_student(folder: RunFolder, *, processes: int = 1, sharded: bool = False) -> Outlook:
    """What training the recipe's student would take, without loading or changing anything.

    Args:
        folder: a run folder with a dataset.
        processes: that share the work, one a GPU.
        sharded: whether they split the model among them.
    """
    check_packages("planning a training")
    prepare_process()
    with quiet():
        work = _Training(folder, folder.recipe())
        use_all_cores()
        return work.outlook(
            work.examples(), find_room(work.device, processes, sharded=sharded), CALIBRATION_SECONDS
        )


def shown_masks(folder: RunFolder, count: int) -> list[Shown]:
    """Training examples as the student meets them, `count` evenly spread, with what is learned."""
    check_packages("showing what is learned")
    with quiet():
        work = _Training(folder, folder.recipe())
        kept = work.lessons.examples.kept
        return [show(kept[at], work.form.tokenizer) for at in spread(len(kept), count)]


def read_summary(folder: RunFolder) -> TrainSummary | None:
    """What training left behind, or None where it is missing, incomplete or of another version."""
    summary = parse_summary(folder.read_json(folder.student / SUMMARY))
    if summary is None:
        return None
    parts = [part for part in (summary.adapter, summary.merged) if part is not None]
    return summary if all((folder.path / part).is_dir() for part in parts) else None


class _Training:
    """One training: what it reads, and the marks that say whether it was done before."""

    def __init__(self, folder: RunFolder, recipe: Recipe) -> None:
        if recipe.student is None:
            raise RecipeError(
                "the recipe has no student section; add one, such as "
                "--set student.base=smollm2-135m-instruct"
            )
        self.began = time.monotonic()
        self.folder = folder
        self.config: StudentConfig = recipe.student
        self.checkpoints = folder.student / "checkpoints"
        self.rows = read_split(folder.dataset, "train")
        if self.config.conversations is not None:
            self.rows += read_conversations(self.config.conversations)
        policy = Policy(local=recipe.privacy == "local", allow_hosts=tuple(recipe.allow_hosts))
        self.base: Base = find_base(self.config.base, policy)
        tokenizer = load_tokenizer(self.base.folder, self.base.name)
        self.form = StudentFormat(
            tokenizer,
            self.base.name,
            recipe.dataset.system_prompt,
            encoder=is_encoder_decoder(self.base.folder),
        )
        self.device = choose_device(self.config.device)
        check_optimizer(self.config.optimizer, sharded=is_sharded())
        settings = self.config.model_dump(mode="json", exclude=set(NOT_LEARNED))
        distilled, preferred = self.config.distillation, self.config.preference
        self.data = Data(
            teacher=find_base(distilled.teacher, policy) if distilled else None,
            pairs=read_pairs(preferred.data) if preferred else [],
        )
        learned = [FORMAT, settings, recipe.seed, self.base.identity, self.form.tag, self.rows]
        learned += [self.data.pairs, self.data.teacher and self.data.teacher.identity]
        self.mark = fingerprint(learned)
        self.done_mark = fingerprint([self.mark, self.config.merge])
        self.recipe = recipe
        chosen = self.config.micro_batch_size
        self.plan = Plan(
            **self.config.model_dump(
                include=set(Plan.__struct_fields__) - {"device", "micro_batch_size"}
            ),
            micro_batch_size=1 if chosen == "auto" else chosen,  # what fits is not known yet
            seed=recipe.seed,
            device=self.device,
            throughput=self._throughput(),
        )

    def _throughput(self) -> Throughput:
        """What makes it fast, of what the recipe asks for. Raises `RecipeError`."""
        asked = self.config.model_dump(include=set(Wanted.__struct_fields__))
        bf16 = str(compute_dtype(self.device)) == "torch.bfloat16"
        return choose(self.base.folder, self.base.name, self.device, Wanted(**asked), bf16=bf16)

    def run(self, force: bool, on_progress: OnProgress | None) -> TrainSummary:
        """Train, write the student and the summary, and book what it took."""
        examples = self.examples()
        held_out = self._held_out()
        use_all_cores()
        room = find_room(self.device, process_count(), sharded=is_sharded())
        outlook = self.outlook(examples, room, CALIBRATION)
        refuse(outlook, self.base.name)
        self.plan = msgspec.structs.replace(
            self.plan, micro_batch_size=outlook.micro_batch_size, recompute=outlook.recompute
        )
        stages = self._stages(room)
        aside = Aside(
            outlook=outlook,
            hour_price=from_dollars(self.config.gpu_hour_price),
            held_out=held_out,
            report_to=self._trackers(),
            name=self.recipe.name,
        )
        if not is_main_process():  # one process of several writes the results
            return self._train(examples, stages, 0.0, aside, None)
        ledger = Ledger(self.folder.db_path)
        with writing(self.folder.student), ledger, _session(ledger):
            before = self._clear(ledger, force)
            aside = msgspec.structs.replace(aside, kwh=before.kwh)
            summary = self._train(examples, stages, before.seconds, aside, on_progress)
            _book(ledger, self.config, summary)
            write_json(self.folder.student / SUMMARY, msgspec.to_builtins(summary))
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        return summary

    def examples(self) -> Examples:
        """The records as token ids. Raises `UserError` where nothing is left to learn from."""
        return self.lessons.examples

    @functools.cached_property
    def lessons(self) -> Lessons:
        """What is learned; made once it is needed."""
        context = context_length(self.base.folder)
        return prepare(self.form, self.rows, self.config.max_length, context)

    def outlook(self, examples: Examples, room: Room, calibration: float) -> Outlook:
        """What training on `examples` in `room` takes."""
        model = measure_model(self.base.folder, self.base.name)
        scores = self.plan.throughput.chosen == "eager"
        model = msgspec.structs.replace(model, stored_scores=scores)
        lengths = [example.length for example in examples.kept]
        plan, order = arrange(lengths, self.plan)
        chosen = self.config.micro_batch_size
        job = Job(
            method=self.config.method,
            rank=self.config.lora_rank,
            batch_size=plan.batch_size,
            micro_batch_size=None if chosen == "auto" else chosen,
            lengths=[lengths[at] for at in order],
            max_length=self.lessons.max_length,
            epochs=len(order) / len(lengths),
            recompute=None if plan.recompute == "auto" else plan.recompute,
            optimizer=plan.optimizer,
            throughput=plan.throughput,
            sparse_head=plan.sparse_head,
            answers=sum(example.learned for example in examples.kept) / sum(lengths),
        )
        price = from_dollars(self.config.gpu_hour_price)
        return foresee(model, job, room, hour_price=price, calibration=calibration)

    def _held_out(self) -> HeldOut | None:
        """What is measured during training. Raises `FolderError` without held-out records."""
        if self.config.eval_steps is None:
            return None
        settings = self.recipe.evaluate
        rows = read_split(self.folder.dataset, "test")
        rows = [rows[at] for at in spread(len(rows), settings.max_records)]
        # Generating would gather a split model's weights anew for each token.
        asked = [] if is_sharded() else [rows[at] for at in spread(len(rows), settings.samples)]
        return HeldOut(
            every=self.config.eval_steps,
            patience=self.config.early_stopping_patience,
            examples=self.form.examples(rows, self.lessons.max_length).kept,
            asked=[
                (ids, "\n\n".join(filter(None, [row["instruction"], row["input"]])), row["output"])
                for row, ids in zip(asked, self.form.prompt_ids(asked), strict=True)
            ],
            tokenizer=self.form.tokenizer,
            stop_ids=self.form.stop_ids,
            max_new_tokens=settings.max_new_tokens,
        )

    def _trackers(self) -> list[str]:
        check_trackers(self.config.report_to, local=self.recipe.privacy == "local")
        return list(self.config.report_to) if is_main_process() else []

    def _clear(self, ledger: Ledger, force: bool) -> Clock:
        """Remove what cannot be continued; the time that went into what can."""
        clock = read_clock(self.checkpoints)
        if clock is not None and clock.fingerprint == self.mark and not force:
            remove_torn(self.checkpoints, self.mark)
            return clock
        if clock is not None:
            price = self.config.gpu_hour_price
            _book_hours(ledger, "this machine, training given up", clock.seconds, price)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        return Clock(self.mark, 0.0)

    def _stages(self, room: Room) -> list[Stage]:
        """The trainings after fine-tuning. Raises `RecipeError` for what they cannot be."""
        found = plan_stages(self.config, self.data, self.form, self.lessons, self.plan)
        if found and room.sharded:
            raise RecipeError(
                f"student.{found[0].kind}: needs the whole model in each process, and this launch "
                "splits it among them; leave it out, or launch without sharding"
            )
        return found

    def _train(
        self,
        examples: Examples,
        stages: list[Stage],
        before: float,
        aside: Aside,
        on_progress: OnProgress | None,
    ) -> TrainSummary:
        def clock() -> float:
            return before + time.monotonic() - self.began

        method = self.config.method
        model, plan, notes = self._load()
        model, fitted = fit(
            model if method == "full" else add_adapter(model, plan),
            self.form.tokenizer,
            examples.kept,
            plan,
            self.checkpoints,
            self.mark,
            clock,
            on_progress,
            build=SUPERVISED["encoder-decoder" if self.form.encoder else "causal"],
            aside=aside,
        )
        model, later = go_on(
            model,
            self.form.tokenizer,
            stages,
            self.checkpoints,
            self.mark,
            clock,
            on_progress,
            msgspec.structs.replace(aside, kwh=fitted.kwh),
        )
        if fitted.saved is not None and is_main_process():
            model = self._whole(fitted.saved)
        assert aside.outlook is not None  # noqa: S101 (every training has its plan)
        # Merging takes the float32 base, which may be more than the GPU that trained has.
        roomy = aside.outlook.merging <= aside.outlook.have
        device = self.device if roomy else "cpu"
        merged_dtype = self._export(model, examples, device) if is_main_process() else None
        return summarize(
            self.base,
            self.form,
            self.lessons,
            fitted,
            method=self.config.method,
            device=self.device,
            outlook=aside.outlook,
            hour_price=aside.hour_price,
            merged_dtype=merged_dtype,
            later=later,
            notes=[*notes, *(note for stage in stages for note in stage.notes)],
            seconds=clock(),
            fingerprint=self.done_mark,
        )

    def _load(self) -> tuple[Any, Plan, list[str]]:
        """The base as it is trained, the plan as it can be carried out, and what is to be said."""
        method, throughput = self.config.method, self.plan.throughput
        model = load_model(
            self.base.folder,
            self.base.name,
            device=self.device,
            dtype=weight_dtype(self.device, trained=method == "full"),
            quantized=method == "qlora",
            attention=throughput.attention,
        )
        check_vocabulary(model, self.form.tokenizer, self.base.name)
        if throughput.liger:
            use_liger(model)
        insisted = self.config.packing is True
        plan, notes = settle(model, self.plan, self.base.name, insisted=insisted)
        return model, plan, [f"trained with {plan.throughput.words}", *notes]

    def _whole(self, saved: Path) -> Any:
        """The trained model, of which each process had a part, loaded on the processor."""
        full = self.config.method == "full"
        source = saved if full else self.base.folder
        model = load_model(
            source, self.base.name, device="cpu", dtype=weight_dtype("cpu", trained=full)
        )
        return model if full else load_adapter(model, saved)

    def _export(self, model: Any, examples: Examples, device: str) -> str | None:
        """Write adapter and merged model; the dtype of the latter, or None where there is none."""
        student = self.folder.student
        adapter, merged = student / "adapter", student / "merged"
        (student / SUMMARY).unlink(missing_ok=True)  # the student is about to be another one
        shutil.rmtree(student / "gguf", ignore_errors=True)
        if self.config.method == "full":
            shutil.rmtree(adapter, ignore_errors=True)
            dtype = stored_dtype(self.base.folder)
            with replacing(merged) as new:
                save_model(model, new, self.form, dtype)
            return str(dtype).removeprefix("torch.")
        with replacing(adapter) as new:
            save_adapter(model, new, self.base, self.form)
        del model
        if not self.config.merge:
            shutil.rmtree(merged, ignore_errors=True)
            return None
        chosen = spread(len(examples.kept), CHECK_PROMPTS)
        prompts = [examples.kept[at].prompt for at in chosen]
        with replacing(merged) as new:
            return merge(self.base, adapter, new, self.form, prompts, device)


@contextlib.contextmanager
def _session(ledger: Ledger) -> Iterator[None]:
    """Note in the ledger that this stage worked, and whether it came to its end."""
    number, outcome = ledger.begin_session(STAGE), "stopped"
    try:
        yield
        outcome = "done"
    finally:
        ledger.end_session(number, outcome)


def _book(ledger: Ledger, config: StudentConfig, summary: TrainSummary) -> None:
    _book_hours(ledger, "this machine", summary.seconds, config.gpu_hour_price)
    ledger.expense(STAGE, "tokens trained", summary.tokens, "tokens", 0)


def _book_hours(ledger: Ledger, item: str, seconds: float, price: Decimal) -> None:
    ledger.expense(STAGE, item, seconds / 3600, "hours", _cost(seconds, price))


def _cost(seconds: float, price: Decimal) -> int:
    return from_dollars(price * Decimal(str(seconds)) / 3600)


def _write_cards(
    folder: RunFolder, recipe: Recipe, config: StudentConfig, summary: TrainSummary
) -> None:
    """Write the cards anew: they also tell settings that are not worth another training."""
    settings = ("epochs", "learning_rate", "scheduler", "batch_size", "max_length")
    lora = ("lora_rank", "lora_alpha", "lora_dropout") if summary.method != "full" else ()
    facts = StudentFacts(
        name=recipe.name,
        dataset_repo=recipe.publish.dataset_repo or "",
        dataset_license=recipe.dataset.license,
        settings={name: getattr(config, name) for name in (*settings, *lora)},
        cost=_cost(summary.seconds, config.gpu_hour_price),
        same_as_teacher=recipe.teacher.kind == "local"
        and same_model(recipe.teacher.model, summary.base),
        training=summary,
    )
    for part in (summary.adapter, summary.merged):
        if part is not None:
            card = student_card(facts, kind="adapter" if part == summary.adapter else "merged")
            write_atomically(folder.path / part / "README.md", card.encode())
