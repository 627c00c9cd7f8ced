"""What follows fine-tuning: distillation from a local teacher, and direct preference optimization.

Each goes on with the model that the one before it left, has checkpoints of its own beside those of
fine-tuning, and is gone on with after a kill as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.core.sections.student import DistillationConfig, PreferenceConfig, StudentConfig
from selfinstruct.steps.training import distillation, preference
from selfinstruct.steps.training.base import TEACHER_KEYS, Base, speaking_of
from selfinstruct.steps.training.checkpoints import remove_torn
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.lessons import Lessons
from selfinstruct.steps.training.loading import load_model, load_tokenizer
from selfinstruct.steps.training.plan import Plan, is_main_process, wait_for_all
from selfinstruct.steps.training.progress import OnProgress
from selfinstruct.steps.training.runtime import compute_dtype, free_memory
from selfinstruct.steps.training.setup import Build
from selfinstruct.steps.training.summary import Later, length_notes
from selfinstruct.steps.training.trainer import fit
from selfinstruct.steps.training.watch import Aside

Kind = Literal["distillation", "preference"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One training after fine-tuning, as it is to be done.

    `build` makes what makes the trainer, from the model as fine-tuning left it and a folder for
    what it needs.
    """

    kind: Kind
    source: str
    rows: Sequence[Any]
    plan: Plan
    build: Callable[[Any, Path], Build]
    notes: list[str]
    commit: str = ""


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainings after fine-tuning read: the teacher's model, and the preference pairs."""

    teacher: Base | None = None
    pairs: list[dict[str, Any]] = []


def plan_stages(
    config: StudentConfig, data: Data, form: StudentFormat, lessons: Lessons, plan: Plan
) -> list[Stage]:
    """The trainings that `config` asks for after fine-tuning, in their order.

    Raises `RecipeError` for an encoder-decoder student, `UserError` for a teacher with other tokens
    or pairs none of which fits.
    """
    # Each step has two models, or two answers to each prompt.
    micro = max(1, plan.micro_batch_size // 2)
    # Pairs, and answers that are yet to be written, have shapes of their own.
    throughput = msgspec.structs.replace(plan.throughput, packing=False, compile=False)
    plan = msgspec.structs.replace(
        plan, micro_batch_size=micro, max_steps=None, throughput=throughput
    )
    found = []
    if config.distillation is not None and data.teacher is not None:
        found.append(_distil(config.distillation, data.teacher, form, lessons, plan))
    if config.preference is not None:
        found.append(_prefer(config.preference, data.pairs, form, lessons, plan))
    return found


def _telling(on_progress: OnProgress | None, stage: str) -> OnProgress | None:
    """`on_progress`, told which training the steps are of."""
    if on_progress is None:
        return None
    return lambda progress: on_progress(msgspec.structs.replace(progress, stage=stage))


def go_on(
    model: Any,
    tokenizer: Any,
    stages: Sequence[Stage],
    checkpoints: Path,
    fingerprint: str,
    clock: Callable[[], float],
    on_progress: OnProgress | None,
    aside: Aside,
) -> tuple[Any, list[Later]]:
    """Train `model`, which fine-tuning has left, by each of `stages`; how that went.

    The arguments are those of `trainer.fit`; `checkpoints` is the folder of fine-tuning's own.
    """
    done, name = [], aside.name
    for stage in stages:
        free_memory()  # the optimizer of the training before, as large as the model or larger
        work = checkpoints / stage.kind
        if is_main_process():
            remove_torn(work, fingerprint)
        aside = msgspec.structs.replace(
            aside, outlook=None, held_out=None, clock=checkpoints, name=f"{name}-{stage.kind}"
        )
        model, fitted = fit(
            model,
            tokenizer,
            stage.rows,
            stage.plan,
            work,
            fingerprint,
            clock,
            _telling(on_progress, stage.kind),
            build=stage.build(model, work),
            aside=aside,
        )
        aside = msgspec.structs.replace(aside, kwh=fitted.kwh)
        preference.drop_reference(model)
        done.append(
            Later(
                kind=stage.kind,
                source=stage.source,
                commit=stage.commit,
                records=len(stage.rows),
                losses=fitted.losses,
                notes=[f"{stage.kind}: {note}" for note in fitted.notes],
            )
        )
    return model, done


def _distil(
    config: DistillationConfig, teacher: Base, form: StudentFormat, lessons: Lessons, plan: Plan
) -> Stage:
    _refuse_encoder(form, "distillation")
    with _of_teacher():
        tokenizer = load_tokenizer(teacher.folder, teacher.name)
    distillation.check_tokens(form.tokenizer, tokenizer, teacher.name)

    def build(model: Any, _: Path) -> Build:
        dtype = compute_dtype(plan.device)
        with _of_teacher():
            whole = load_model(teacher.folder, teacher.name, device=plan.device, dtype=dtype)
        rows = model.get_input_embeddings().num_embeddings
        distillation.match_rows(whole, rows, teacher.name)
        return distillation.build(
            whole,
            beta=config.beta,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
        )

    return Stage(
        kind="distillation",
        source=teacher.name,
        commit=teacher.commit,
        rows=[msgspec.structs.replace(one, answer=[], hidden=[]) for one in lessons.examples.kept],
        plan=msgspec.structs.replace(
            plan, epochs=config.epochs, learning_rate=config.learning_rate, neftune_alpha=None
        ),
        build=build,
        notes=[],
    )


def _of_teacher() -> Any:
    return speaking_of(TEACHER_KEYS)


def _prefer(
    config: PreferenceConfig,
    rows: Sequence[Mapping[str, Any]],
    form: StudentFormat,
    lessons: Lessons,
    plan: Plan,
) -> Stage:
    _refuse_encoder(form, "preference")
    pairs = preference.tokenize_pairs(rows, form, lessons.max_length)
    if not pairs.kept:
        raise UserError(
            f"student.preference.data: {config.data}: with student.max_length="
            f"{lessons.max_length} tokens, no answer of any pair is left after its prompt; raise it"
        )

    def build(model: Any, work: Path) -> Build:
        if plan.method != "full":
            return preference.build(config.beta)  # TRL keeps a copy of the adapter
        folder = work / "reference"
        if is_main_process():
            model.save_pretrained(folder)
        wait_for_all()
        dtype = compute_dtype(plan.device)
        reference = load_model(folder, "reference", device=plan.device, dtype=dtype)
        return preference.build(config.beta, reference)

    notes = length_notes(pairs, lessons.max_length)
    return Stage(
        kind="preference",
        source=config.data,
        rows=pairs.kept,
        plan=msgspec.structs.replace(
            plan, epochs=config.epochs, learning_rate=config.learning_rate, neftune_alpha=None
        ),
        build=build,
        notes=[f"preference pairs: {note}" for note in notes],
    )


def _refuse_encoder(form: StudentFormat, what: str) -> None:
    if form.encoder:
        raise RecipeError(
            f"student.{what}: {form.base} is an encoder-decoder, which {what} cannot train here; "
            f"leave student.{what} out, or choose a decoder such as smollm2-135m-instruct"
        )
