"""The section `select`: which of the kept records are used, and by which scores."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from selfinstruct.core.sections.strict import Strict
from selfinstruct.core.sections.teacher import TeacherConfig

ScoreName = Literal[
    "instruction_words",
    "input_words",
    "output_words",
    "output_sentences",
    "output_ttr",
    "output_mtld",
    "output_reading_ease",
    "perplexity",
    "ifd",
    "reward",
    "complexity",
    "quality",
    "deita",
    "rubric",
]


class JudgeConfig(Strict):
    """A teacher that rates records, for the scores complexity, quality, deita and rubric."""

    teacher: TeacherConfig | None = None
    """The judge; the recipe's `teacher` where not given."""
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    """Of the first try; none leaves it to the server."""
    max_tokens: int = Field(default=256, ge=8)
    """Tokens of a reply, and what the money cap reserves. A judge that reasons needs more."""
    tries: int = Field(default=3, ge=1, le=10)
    """Requests for a score until a reply holds one."""
    batch: bool = False
    """Ask through the provider's batch API (`openai`, `anthropic`): about half the price, within a
    day."""


class SelectConfig(Strict):
    """Which of the kept records go into the dataset; without this section, all of them."""

    method: Literal["top_k", "random", "k_center", "facility_location"] = "top_k"
    """`top_k` goes down the order of `score`, `random` is the baseline; `k_center` spreads out over
    all that is there, `facility_location` stands for it. See [selection](selection.md)."""
    count: int | None = Field(default=None, ge=1)
    """Records to select; as many as the other settings let through where not given."""
    score: ScoreName | None = None
    """The score that `top_k` goes by."""
    lowest: bool = False
    """Go from the lowest score up."""
    scores: list[ScoreName] = Field(default_factory=list)
    """More scores to work out; all become columns of the dataset."""
    min_distance: float = Field(default=0.0, ge=0, le=2)
    """For `top_k` and `random`: leave out a record whose distance (1 minus the cosine of the
    embeddings) to a selected one is below this. DEITA uses 0.1."""
    embedder: str = "minilm"
    """For distances: `minilm`, a sentence-transformers folder, or a Hub id."""
    quota: int | None = Field(default=None, ge=1)
    """Records of a group at most."""
    quota_by: Literal["verb", "category", "topic"] = "verb"
    """What makes a group: the instruction's root verb, the record's category, or its topic."""
    topics: int | None = Field(default=None, ge=2, le=500)
    """For `quota_by: topic`: how many topics there are; as many as the report shows (12 and
    fewer) where not given."""
    model: str = "smollm2-135m-instruct"
    """For `perplexity` and `ifd`: a model folder, a Hub id, a GGUF file, or a known name."""
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    reward_model: str | None = None
    """For `reward`: a sequence classifier with one label, as a folder or a Hub id."""
    max_length: int = Field(default=1024, ge=16)
    """Tokens of a record that these models read."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where these models run."""

    @property
    def score_names(self) -> list[ScoreName]:
        """Every score to be worked out, once each."""
        first = [] if self.score is None else [self.score]
        return list(dict.fromkeys([*first, *self.scores]))

    @model_validator(mode="after")
    def _whole(self) -> SelectConfig:
        if self.method == "top_k" and self.score is None:
            raise ValueError("method top_k needs a score to go by, such as score: output_words")
        if "reward" in self.score_names and self.reward_model is None:
            raise ValueError("the score reward needs a reward_model")
        if self.method in ("k_center", "facility_location"):
            if self.count is None:
                raise ValueError(f"method {self.method} needs a count")
            if self.min_distance:
                raise ValueError(f"method {self.method} takes no min_distance")
        if self.topics is not None and (self.quota is None or self.quota_by != "topic"):
            raise ValueError("topics needs a quota, and quota_by: topic")
        return self
