"""What came of a training, put together as training.json has it."""

from __future__ import annotations

from pathlib import Path

from selfinstruct.steps.planning.outlook import Outlook
from selfinstruct.steps.training.fitted import Fitted
from selfinstruct.steps.training.inputs import Inputs
from selfinstruct.steps.training.runtime import describe_device, versions
from selfinstruct.steps.training.summary import Actual, Later, TrainSummary, best_note

_PLACES = {"instruction": "{instruction}", "input": "{input}"}


def summarize(
    inputs: Inputs,
    fitted: Fitted,
    *,
    outlook: Outlook,
    hour_price: int,
    merged_dtype: str | None,
    later: list[Later],
    notes: list[str],
    seconds: float,
    fingerprint: str,
) -> TrainSummary:
    """The summary of a training on `inputs` that went as `fitted` and `later` say.

    Args:
        inputs: what was trained, on what and how.
        fitted: how fine-tuning went.
        outlook: what was foreseen for it.
        hour_price: picodollars an hour of this machine.
        merged_dtype: of the merged model, None where there is none.
        later: the trainings that followed.
        notes: what is to be known besides.
        seconds: over all sessions, everything included.
        fingerprint: of what decides the result.
    """
    base, method, lessons = inputs.base, inputs.config.method, inputs.lessons
    examples = lessons.examples
    best = best_note(fitted.best_step, len(fitted.losses))
    return TrainSummary(
        base=base.name,
        base_hub_id=base.hub_id,
        base_license=base.license,
        base_commit=base.commit,
        method=method,
        trainable_params=fitted.trainable_params,
        total_params=fitted.total_params,
        max_length=lessons.max_length,
        device=describe_device(inputs.device),
        seconds=round(seconds, 1),
        steps=len(fitted.losses),
        epochs=round(fitted.examples_seen / len(examples.kept), 3),
        train_records=len(examples.kept),
        tokens=sum(step.tokens for step in fitted.losses),
        useful_tokens=fitted.useful_tokens,
        padded_tokens=fitted.padded_tokens,
        truncated=len(examples.truncated),
        fully_masked=len(examples.fully_masked),
        losses=fitted.losses,
        held_out=fitted.held_out,
        best_step=fitted.best_step,
        plan=outlook,
        actual=actual(fitted, hour_price),
        merged=None if merged_dtype is None else "student/merged",
        merged_dtype=merged_dtype,
        adapter=None if method == "full" else "student/adapter",
        prompt_format=inputs.form.kind,
        chat_template=Path(inputs.config.chat_template or "").name,
        prompt=inputs.form.prompt(_PLACES),
        later=later,
        notes=[
            *lessons.notes,
            *fitted.notes,
            *best,
            *notes,
            *(note for one in later for note in one.notes),
        ],
        versions=versions(),
        fingerprint=fingerprint,
    )


def actual(fitted: Fitted, hour_price: int) -> Actual:
    """What fine-tuning took, at `hour_price` picodollars an hour, to be held against the plan."""
    return Actual(
        micro_batch_size=fitted.micro_batch_size,
        peak_bytes=fitted.peak_bytes,
        seconds=round(fitted.seconds, 3),
        corrected_seconds=fitted.corrected_seconds,
        cost=round(hour_price * fitted.seconds / 3600),
        kwh=fitted.kwh,
    )
