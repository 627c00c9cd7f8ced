"""The recipe: everything a run does, as YAML checked by a strict model.

Its sections are in `core.sections`. An unknown key is an error that names the nearest known one.
Relative paths in a recipe are relative to the folder the command runs in; a path that is not there
is looked for among the files shipped with the package, so that ``seeds/general.jsonl`` works in a
project and from an installed wheel.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.sections.dataset import DatasetConfig, PublishConfig
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.sections.generate import DocumentSource, GenerateConfig, SeedSource
from selfinstruct.core.sections.select import SelectConfig
from selfinstruct.core.sections.strict import Strict
from selfinstruct.core.sections.student import EvaluateConfig, StudentConfig
from selfinstruct.core.sections.teacher import Price, TeacherConfig

TWO_STEP = frozenset({"self-instruct", "magpie"})
"""Strategies that answer in a second call."""
SEEDLESS = frozenset({"documents"})
"""Strategies that can do without seeds."""


class Recipe(Strict):
    """A whole run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's folder under outputs/."""
    seed: int = 42
    """Seeds every random draw."""
    privacy: Literal["local", "open"] = "open"
    """`local` refuses every host but this machine and `allow_hosts`."""
    allow_hosts: list[str] = Field(default_factory=list)
    """Hosts that `privacy: local` lets through, such as a server of your own network."""
    seeds: list[SeedSource] = Field(default_factory=list)
    documents: list[DocumentSource] = Field(default_factory=list)
    """To write questions and answers from, by the strategy `documents`, which is the one asked
    where a recipe has documents and names no strategy. With documents, seeds may be left out."""
    teacher: TeacherConfig | None = None
    """Writes the records. Where not given nothing is generated: the seeds are the dataset, for a
    student on data that is there already."""
    answer_teacher: TeacherConfig | None = None
    """Answers instructions written by `teacher`, for the strategies that answer in a second call;
    `teacher` does both where not given."""
    generate: GenerateConfig = Field(default_factory=GenerateConfig)
    filters: FiltersConfig = Field(default_factory=FiltersConfig)
    select: SelectConfig | None = None
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    student: StudentConfig | None = None
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    publish: PublishConfig = Field(default_factory=PublishConfig)
    prices: dict[str, Price] = Field(default_factory=dict)
    """Prices by model name; they go before the shipped table."""

    @property
    def is_local(self) -> bool:
        """Whether no host may be reached but this machine and `allow_hosts`."""
        return self.privacy == "local"

    @property
    def local_teacher(self) -> str | None:
        """The model of a teacher that runs on this machine, as it is named; None for any other."""
        teacher = self.teacher
        return teacher.model if teacher is not None and teacher.kind == "local" else None

    @property
    def sealed_sources(self) -> list[str]:
        """Paths of the private sources that no remote teacher may see."""
        sources: list[SeedSource | DocumentSource] = [*self.seeds, *self.documents]
        return [one.path for one in sources if one.private and not one.allow_remote]

    def need_teacher(self) -> TeacherConfig:
        """The teacher. Raises `RecipeError` where the recipe names none."""
        if self.teacher is None:
            raise RecipeError(
                f"{self.name}: the recipe names no teacher, so nothing can be generated; add one, "
                "such as teacher: {kind: openai, model: gpt-4.1-mini}, or train on the seeds "
                "themselves by `selfinstruct train-student`"
            )
        return self.teacher

    def need_student(self) -> StudentConfig:
        """The student. Raises `RecipeError` where the recipe has none."""
        if self.student is None:
            raise RecipeError(
                f"{self.name}: no base is named for the student; name a model, such as "
                "--base smollm2-135m-instruct, or give the recipe a section student"
            )
        return self.student

    @field_validator("seeds", "documents", mode="before")
    @classmethod
    def _paths_are_sources(cls, value: Any) -> Any:
        """A source may be written as its path alone, and one source without a list."""
        if isinstance(value, (str, dict)):
            value = [value]
        if isinstance(value, list):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value

    @model_validator(mode="before")
    @classmethod
    def _documents_are_asked_about(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("documents"):
            return given
        generate = given.get("generate") or {}
        if not isinstance(generate, dict) or "strategies" in generate:
            return given
        return given | {"generate": generate | {"strategies": [{"kind": "documents"}]}}

    @model_validator(mode="after")
    def _something_to_start_from(self) -> Self:
        """Raises `ValueError` where a strategy has nothing to draw from, or a source no use."""
        if not self.seeds and not self.documents:
            raise ValueError("it names neither seeds nor documents; give one of them")
        if self.teacher is None:
            if self.documents:
                raise ValueError("documents need a teacher, which writes the questions")
            return self
        kinds = {strategy.kind for strategy in self.generate.strategies}
        if self.documents and "documents" not in kinds:
            raise ValueError(
                "documents are given, and no strategy asks about them; add {kind: documents} to "
                "generate.strategies"
            )
        if "documents" in kinds and not self.documents:
            raise ValueError("the strategy documents needs the key documents: a file or folder")
        if not self.seeds and (without := kinds - SEEDLESS):
            raise ValueError(f"the strategy {min(without)} needs seeds; name a file of examples")
        second = {
            "answer_teacher": self.answer_teacher is not None,
            "generate.batch_answers": self.generate.batch_answers,
        }
        if not kinds & TWO_STEP and (idle := [key for key, is_set in second.items() if is_set]):
            raise ValueError(
                f"{idle[0]} is set, and no strategy answers in a second call; leave it out, or add "
                f"one that does ({', '.join(sorted(TWO_STEP))})"
            )
        return self
