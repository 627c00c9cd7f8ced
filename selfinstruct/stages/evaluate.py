"""Evaluate: base and student side by side on the held-out records.

The loss on held-out answers says what was learned; the greedy answers show it. Both models get the
same prompts, the same tokens and the same arithmetic: for LoRA they are even the same weights in
memory, with the adapter off and on. What was measured is in `evaluation/evaluation.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import FolderError
from selfinstruct.core.ids import fingerprint
from selfinstruct.core.money import from_dollars
from selfinstruct.core.recipe import Recipe
from selfinstruct.engine.folder import RunFolder, write_json
from selfinstruct.engine.ledger import Ledger
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.training.base import find_again, same_model
from selfinstruct.steps.training.format import Example, StudentFormat
from selfinstruct.steps.training.held_out import measurable
from selfinstruct.steps.training.loading import (
    is_encoder_decoder,
    load_model,
    load_tokenizer,
)
from selfinstruct.steps.training.measures import (
    greedy,
    mean_loss,
    mean_rouge_l,
    perplexity,
    spread,
)
from selfinstruct.steps.training.records import Row, read_split
from selfinstruct.steps.training.runtime import (
    check_packages,
    choose_device,
    compute_dtype,
    describe_device,
    prepare_process,
    quiet,
    use_all_cores,
)
from selfinstruct.steps.training.summary import SUMMARY as TRAINING
from selfinstruct.steps.training.summary import TrainSummary, length_notes, parse_summary

STAGE = "evaluate"
SUMMARY = "evaluation.json"
FORMAT = 1  # raise it when the same models and records are to give other numbers
# Called with what is measured ("loss before", ...), how much of it is done, and how much there is.
OnProgress = Callable[[str, int, int], None]


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """One model: mean loss in nats per answer token, its exp, and mean ROUGE-L F1 of the samples
    (None without samples).
    """

    loss: float
    perplexity: float
    rouge_l: float | None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out record with its reference answer and both models' greedy ones."""

    id: str
    instruction: str
    input: str
    reference: str
    before: str
    after: str


class EvaluationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """evaluation.json: the base before and the student after, on the same held-out records.

    `tokens` counts the answer tokens that the loss is a mean of. `same_weights_as_teacher` is set
    where a local teacher serves the base itself: the student then learned from nobody better.
    """

    records: int
    tokens: int
    before: Measures
    after: Measures
    samples: list[Sample]
    seconds: float
    device: str
    same_weights_as_teacher: bool
    notes: list[str]
    fingerprint: str


def evaluate(
    folder: RunFolder, *, force: bool = False, on_progress: OnProgress | None = None
) -> EvaluationSummary:
    """Measure base and student on the run's held-out records.

    Args:
        folder: a run folder with a trained student, locked by the caller.
        force: measure again although nothing changed.
        on_progress: told what is being measured and how far it is.

    Raises `FolderError` without a student or held-out records, and other `UserError`s where the
    base is no longer to be found.
    """
    check_packages("evaluating a student")
    prepare_process()
    began = time.monotonic()
    recipe = folder.recipe()
    with quiet():
        work = _Evaluation(folder, recipe)
        done = read_summary(folder)
        if done is not None and done.fingerprint == work.mark and not force:
            return done
        summary = work.run(began, on_progress or _silent)
    _book(folder, recipe, summary.seconds)
    write_json(folder.evaluation / SUMMARY, msgspec.to_builtins(summary))
    return summary


def read_summary(folder: RunFolder) -> EvaluationSummary | None:
    """What was measured, or None where it is missing or of another version."""
    try:
        return msgspec.convert(folder.read_json(folder.evaluation / SUMMARY), EvaluationSummary)
    except msgspec.ValidationError:
        return None


class _Evaluation:
    """One evaluation: what it reads, and the mark that says whether it was done before."""

    def __init__(self, folder: RunFolder, recipe: Recipe) -> None:
        self.folder = folder
        self.config = recipe.evaluate
        self.trained = _student(folder)
        policy = Policy.of(recipe.privacy, recipe.allow_hosts)
        self.base = find_again(self.trained.base, policy, self.trained.base_commit)
        saved = folder.path / str(self.trained.adapter or self.trained.merged)
        self.form = StudentFormat(
            load_tokenizer(saved, self.base.name),  # with the template that was trained on
            self.base.name,
            recipe.dataset.system_prompt,
            encoder=is_encoder_decoder(self.base.folder, self.base.name),
            template=self.trained.chat_template,
        )
        self.device = choose_device(recipe.student.device if recipe.student else "auto")
        teacher = recipe.local_teacher
        self.same = teacher is not None and same_model(teacher, self.trained.base)
        rows, self.refused = self.form.taken(read_split(folder.dataset, "test"))
        self.rows: list[Row] = [rows[at] for at in spread(len(rows), self.config.max_records)]
        settings = self.config.model_dump(mode="json")
        self.mark = fingerprint(
            [FORMAT, settings, self.trained.fingerprint, self.form.tag, self.rows, self.same]
        )

    def run(self, began: float, tell: OnProgress) -> EvaluationSummary:
        """Measure both models."""
        use_all_cores()
        found = measurable(self.folder.dataset, self.form, self.rows, self.trained.max_length)
        sampled = [self.rows[at] for at in spread(len(self.rows), self.config.samples)]
        (before, first), (after, second) = self._both(found.kept, sampled, tell)
        return EvaluationSummary(
            records=len(found.kept),
            tokens=sum(example.learned for example in found.kept),
            before=before,
            after=after,
            samples=[
                Sample(
                    id=row["id"],
                    instruction=row["instruction"],
                    input=row["input"],
                    reference=row["output"],
                    before=one,
                    after=other,
                )
                for row, one, other in zip(sampled, first, second, strict=True)
            ],
            seconds=round(time.monotonic() - began, 1),
            device=describe_device(self.device),
            same_weights_as_teacher=self.same,
            notes=[*self.refused, *length_notes(found, self.trained.max_length)],
            fingerprint=self.mark,
        )

    def _both(
        self, examples: Sequence[Example], sampled: Sequence[Row], tell: OnProgress
    ) -> tuple[tuple[Measures, list[str]], tuple[Measures, list[str]]]:
        """Measures and answers of the base, and of the student."""
        model = self._load(self.base.folder, self.base.name)
        if self.trained.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self.folder.path / self.trained.adapter)
            model.eval()
            with model.disable_adapter():
                before = self._measure(model, "before", examples, sampled, tell)
        else:
            before = self._measure(model, "before", examples, sampled, tell)
            del model  # two large models need not fit at once
            model = self._load(self.folder.path / str(self.trained.merged), "student")
        return before, self._measure(model, "after", examples, sampled, tell)

    def _load(self, path: Path, name: str) -> Any:
        return load_model(path, name, device=self.device, dtype=compute_dtype(self.device))

    def _measure(
        self,
        model: Any,
        when: str,
        examples: Sequence[Example],
        sampled: Sequence[Row],
        tell: OnProgress,
    ) -> tuple[Measures, list[str]]:
        tokenizer = self.form.tokenizer
        pad_id = tokenizer.pad_token_id
        loss = mean_loss(
            model,
            examples,
            pad_id=pad_id,
            on_batch=lambda done, total: tell(f"loss {when}", done, total),
        )
        answers = greedy(
            model,
            self.form.prompt_ids(sampled),
            max_new_tokens=self.config.max_new_tokens,
            stop_ids=self.form.stop_ids,
            pad_id=pad_id,
        )
        texts = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]
        tell(f"answers {when}", len(texts), len(texts))
        references = [row["output"] for row in sampled]
        measures = Measures(
            loss=loss, perplexity=perplexity(loss), rouge_l=mean_rouge_l(references, texts)
        )
        return measures, texts


def _student(folder: RunFolder) -> TrainSummary:
    summary = parse_summary(folder.read_json(folder.student / TRAINING))
    part = None if summary is None else summary.adapter or summary.merged
    if summary is None or part is None or not (folder.path / part).is_dir():
        raise FolderError(
            f"{folder.student}: no trained student here; run: selfinstruct train-student"
        )
    return summary


def _book(folder: RunFolder, recipe: Recipe, seconds: float) -> None:
    price = recipe.student.gpu_hour_price if recipe.student else 0
    cost = from_dollars(price) * seconds / 3600
    with Ledger(folder.db_path) as ledger:
        ledger.expense(STAGE, "this machine", seconds / 3600, "hours", round(cost))


def _silent(_: str, __: int, ___: int) -> None:
    """The progress of an evaluation that nobody watches."""
