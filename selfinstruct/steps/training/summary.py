"""training.json: what training left behind, as the later stages read it."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from selfinstruct.steps.planning.outlook import Outlook
from selfinstruct.steps.training.held_out import Measured
from selfinstruct.steps.training.plan import StepLog

SUMMARY = "training.json"
SHOWN_IDS = 5


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """What a training took, as the plan foresaw it.

    `seconds` is from the first step to the last, over all sessions; `corrected_seconds` is what was
    foreseen for it after the first steps at their speed. `peak_bytes` is that of one process in
    the last session. None for what was not or cannot be read.
    """

    micro_batch_size: int
    peak_bytes: int | None
    seconds: float
    corrected_seconds: float | None
    cost: int
    kwh: float | None


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """One training after fine-tuning.

    `source` is the teacher or the file of pairs, `records` the prompts or pairs it had. `notes` say
    what was changed on the way. `commit` is what of the teacher was loaded from the Hub.
    """

    kind: Literal["distillation", "preference"]
    source: str
    records: int
    losses: list[StepLog]
    notes: list[str] = []
    commit: str = ""


class TrainSummary(msgspec.Struct, frozen=True, kw_only=True):
    """training.json: how the student was trained.

    `base_commit` is what of the base was loaded from the Hub, "" where it came from elsewhere.
    `tokens` counts prompts and answers without padding over all steps, `useful_tokens` those with
    loss, `padded_tokens` the positions computed. `truncated` and `fully_masked` count records cut
    at the maximum length, and left out because their prompt alone fills it. `seconds` covers all
    sessions. `merged` and `adapter` are relative to the run folder; `merged_dtype` is how the
    merged weights are stored. `held_out` are the
    measurements during training, the best of which was at `best_step`. `plan` is what was foreseen
    before the first step. `prompt` shows the form the student was trained on; `chat_template` is
    the name of the recipe's file for it, "" without one. `later` are the
    trainings that followed; the figures above are those of fine-tuning alone, but for `seconds`.
    """

    base: str
    base_hub_id: str
    base_license: str
    base_commit: str = ""
    method: Literal["lora", "qlora", "full"]
    trainable_params: int
    total_params: int
    max_length: int
    device: str
    seconds: float
    steps: int
    epochs: float
    train_records: int
    tokens: int
    useful_tokens: int
    padded_tokens: int
    truncated: int
    fully_masked: int
    losses: list[StepLog]
    held_out: list[Measured]
    best_step: int | None
    plan: Outlook
    actual: Actual
    merged: str | None
    merged_dtype: str | None
    adapter: str | None
    prompt_format: Literal["chat", "alpaca"]
    chat_template: str = ""
    prompt: str
    later: list[Later] = []
    notes: list[str]
    versions: dict[str, str]
    fingerprint: str


def parse_summary(found: dict[str, Any] | None) -> TrainSummary | None:
    """The content of training.json, or None where it is missing or of another version."""
    try:
        return msgspec.convert(found, TrainSummary)
    except msgspec.ValidationError:
        return None


class Cut(Protocol):
    """What has names of examples that were cut, and that were left out."""

    @property
    def truncated(self) -> list[str]:
        """Ids of what was cut."""

    @property
    def fully_masked(self) -> list[str]:
        """Ids of what was left out, being all prompt."""


def length_notes(examples: Cut, max_length: int) -> list[str]:
    """What the user should know about records that were not learned from as they are."""
    notes = []
    for ids, what in (
        (examples.truncated, "were cut: their answers were learned without an end"),
        (examples.fully_masked, "were left out: their prompt alone is as long"),
    ):
        if ids:
            more = ", ..." if len(ids) > SHOWN_IDS else ""
            notes.append(
                f"{len(ids)} records longer than student.max_length={max_length} tokens {what} "
                f"({', '.join(ids[:SHOWN_IDS])}{more})"
            )
    return notes


def best_note(best_step: int | None, steps: int) -> list[str]:
    """What is to be known of weights that held-out records chose."""
    if best_step is None:
        return []
    which = "the last step's" if best_step == steps else f"step {best_step}'s of {steps}"
    return [
        f"the weights are {which}, which had the least loss on held-out records; measured on the "
        "same records, the student looks a little better for it"
    ]
