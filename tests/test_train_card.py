"""The student's model card."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
import yaml

from selfinstruct.steps.planning.job import Job
from selfinstruct.steps.planning.outlook import foresee
from selfinstruct.steps.planning.room import Room
from selfinstruct.steps.planning.shapes import STUDENTS
from selfinstruct.steps.training.card import StudentFacts, student_card
from selfinstruct.steps.training.plan import StepLog
from selfinstruct.steps.training.summary import Actual, TrainSummary

TRAINING = TrainSummary(
    base="smollm2-135m-instruct",
    base_hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    base_license="apache-2.0",
    method="lora",
    trainable_params=10,
    total_params=100,
    max_length=384,
    device="cpu (2 threads)",
    seconds=7200.0,
    steps=2,
    epochs=1.0,
    train_records=16,
    tokens=1234,
    useful_tokens=567,
    padded_tokens=1300,
    truncated=1,
    fully_masked=0,
    losses=[StepLog(1, 2.5, 1e-4, 1.0, 600, 3.0), StepLog(2, 1.25, 1e-4, 1.0, 634, 3.0)],
    held_out=[],
    best_step=None,
    plan=foresee(
        STUDENTS[0].size,
        Job(
            method="lora",
            rank=16,
            batch_size=8,
            micro_batch_size=4,
            lengths=[64] * 16,
            epochs=1.0,
        ),
        Room(device="cuda", memory=1 << 36, name="NVIDIA H100"),
    ),
    actual=Actual(
        micro_batch_size=4,
        peak_bytes=1 << 31,
        seconds=6.0,
        corrected_seconds=None,
        cost=0,
        kwh=None,
    ),
    merged="student/merged",
    merged_dtype="float32",
    adapter="student/adapter",
    prompt_format="chat",
    prompt="```{instruction}```",
    notes=[],
    versions={"torch": "2.13.0"},
    fingerprint="f",
)
FACTS = StudentFacts(
    name="quickstart",
    dataset_repo="acme/tasks",
    dataset_license="apache-2.0",
    settings={"learning_rate": 0.0003},
    cost=2 * 10**12,
    same_as_teacher=False,
    training=TRAINING,
)


def front(facts: StudentFacts, kind: Literal["adapter", "merged"]) -> dict[str, Any]:
    found = yaml.safe_load(student_card(facts, kind=kind).split("---\n")[1])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("kind", "library", "relation"),
    [("adapter", "peft", "adapter"), ("merged", "transformers", "finetune")],
)
def test_front_matter_is_the_hubs(
    kind: Literal["adapter", "merged"], library: str, relation: str
) -> None:
    """The Hub's own reader takes the front matter: base, library, licence and data."""
    from huggingface_hub import ModelCard

    data = ModelCard(student_card(FACTS, kind=kind)).data.to_dict()
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (data["library_name"], data["base_model_relation"]) == (library, relation)
    assert (data["license"], data["datasets"]) == ("apache-2.0", ["acme/tasks"])


def test_the_text_says_what_was_measured() -> None:
    """Losses, tokens, hours and price are those of the training; nothing says it is good."""
    text = student_card(FACTS, kind="adapter")
    for said in ("2.500, 1.250", "1,234", "567", "2.00 hours", "$2.00", "torch 2.13.0"):
        assert said in text
    assert "````\n```{instruction}```\n````" in text, "a fence longer than any in the prompt"
    assert "Teacher and base are the same model" not in text


def test_what_is_not_known_is_left_out() -> None:
    """A base of this machine has no name on the Hub, no known licence, and no path in the card."""
    training = msgspec.structs.replace(
        TRAINING, base="/home/me/models/own.gguf", base_hub_id="", base_license=""
    )
    facts = msgspec.structs.replace(
        FACTS, training=training, dataset_repo="", dataset_license="other"
    )
    found, text = front(facts, "merged"), student_card(facts, kind="merged")
    assert found["license"] == "other"
    assert "base_model" not in found
    assert "datasets" not in found
    assert "`own.gguf`" in text
    assert "/home/me" not in text
    assert "licence is not known" in text
    assert "No licence was set" in text
