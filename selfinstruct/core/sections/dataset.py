"""The sections `dataset` and `publish`: what is written of the records, and where it goes."""

from __future__ import annotations

from pydantic import Field

from selfinstruct.core.sections.strict import Strict


class DatasetConfig(Strict):
    """The dataset folder in the Hub's format."""

    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records kept from training, without near-duplicates in the training split."""
    license: str = "other"
    """The licence's identifier as the Hub knows it."""
    language: list[str] = Field(default_factory=lambda: ["en"])
    include_seeds: bool = False
    """Add the human seeds to the training split, marked as such."""
    open_book: float = Field(default=0.0, ge=0, le=1)
    """Share of the records from documents that have their passage as input: from those a student
    learns to answer from a text that it is given, from the others to know the documents."""
    system_prompt: str = ""
    """First message of every conversation of the `messages` config, where not empty."""


class PublishConfig(Strict):
    """Where dataset and student go."""

    dataset_repo: str | None = None
    """`owner/name` on the Hub."""
    model_repo: str | None = None
    private: bool = True
    endpoint: str | None = None
    """A Hub of your own; the public one where not given."""
    token_env: str = "HF_TOKEN"  # noqa: S105 (a variable's name)
