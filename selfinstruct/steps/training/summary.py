"""training.json: what training left behind, as the later stages read it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from selfinstruct.steps.training.format import Examples
from selfinstruct.steps.training.plan import StepLog

SUMMARY = "training.json"
SHOWN_IDS = 5


class TrainSummary(msgspec.Struct, frozen=True, kw_only=True):
    """training.json: how the student was trained.

    `tokens` counts prompts and answers without padding over all steps, `useful_tokens` those with
    loss, `padded_tokens` the positions computed. `truncated` and `fully_masked` count records cut
    at the maximum length, and left out because their prompt alone fills it. `seconds` covers all
    sessions. `merged` and `adapter` are relative to the run folder; `merged_dtype` is how the
    merged weights are stored. `prompt` shows the form the student was trained on.
    """

    base: str
    base_hub_id: str
    base_license: str
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
    merged: str | None
    merged_dtype: str | None
    adapter: str | None
    prompt_format: Literal["chat", "alpaca"]
    prompt: str
    notes: list[str]
    versions: dict[str, str]
    fingerprint: str


def parse_summary(found: dict[str, Any] | None) -> TrainSummary | None:
    """The content of training.json, or None where it is missing or of another version."""
    try:
        return msgspec.convert(found, TrainSummary)
    except msgspec.ValidationError:
        return None


def length_notes(examples: Examples, max_length: int) -> list[str]:
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
