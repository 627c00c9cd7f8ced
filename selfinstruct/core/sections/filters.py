"""The section `filters`: what a candidate must pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from selfinstruct.core.sections.strict import Strict


class WordingConfig(Strict):
    """Alpaca's rules on wording, as data."""

    rules: str = "recipes/filters/wording.en.yaml"
    """The rules file."""
    enabled: bool = True


class RougeConfig(Strict):
    """Novelty: the longest common subsequence of words against seeds and everything kept."""

    threshold: float = Field(default=0.7, gt=0, le=1)
    """Rejected above this F1, kept at exactly this."""
    field: Literal["instruction", "instruction+input"] = "instruction"
    tokenizer: Literal["unicode", "alpaca"] = "unicode"
    """`alpaca` keeps a-z and 0-9 only, as rouge_score does: other scripts then have no words and
    are never near anything. `unicode` agrees with it on text in ASCII."""
    enabled: bool = True


class MinHashConfig(Strict):
    """Near-duplicates by Jaccard similarity of word n-grams over instruction, input and output."""

    threshold: float = Field(default=0.7, gt=0, le=1)
    ngram: int = Field(default=3, ge=1, le=10)
    enabled: bool = True


# A bare `off` is false in YAML 1.1.
Action = Annotated[
    Literal["reject", "flag", "off"],
    BeforeValidator(lambda value: "off" if value is False else value),
]


class _Actions(Strict):
    """What is done about each rule's finds."""

    @property
    def actions(self) -> dict[str, Literal["reject", "flag", "off"]]:
        """The rules' actions by name."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in named.items() if value in ("reject", "flag", "off")}


class RulesConfig(_Actions):
    """Faults that a record shows by itself. Each rule rejects, flags (the record is kept, and its
    flag with it) or is off."""

    phrases: str = "recipes/filters/phrases.en.yaml"
    """The file of words and phrases that the rules look for."""
    languages: list[str] = Field(default_factory=lambda: ["en"], min_length=1)
    """For `other_language`: the languages expected, as ISO 639 codes."""
    impossible_task: Action = "flag"
    """The instruction asks for what a text cannot be or do."""
    missing_input: Action = "flag"
    """The instruction speaks of a text that is not there."""
    unseen_source: Action = "reject"
    """It is about a link, picture or recording that cannot be seen."""
    no_input: Action = "flag"
    """The input is a way to say that there is none, such as `<noinput>`."""
    input_repeated: Action = "flag"
    """The input stands in the instruction too."""
    no_output: Action = "reject"
    """The output is a way to say that there is none."""
    refusal: Action = "reject"
    """The output declines the task, or speaks of itself as a language model."""
    merged_record: Action = "reject"
    """The output holds another task."""
    unfinished: Action = "flag"
    """The output stops before its end."""
    repetition: Action = "reject"
    """The output repeats itself."""
    placeholder: Action = "flag"
    """The output has gaps to fill that nobody asked for."""
    invented_link: Action = "flag"
    """The output links to a page that the task does not name."""
    invented_citation: Action = "flag"
    """The output cites a source that the task does not name."""
    stray_characters: Action = "flag"
    """Control characters, escapes or wrongly decoded text."""
    toxic_words: Action = "flag"
    """A word of the list of insults."""
    personal_data: Action = "flag"
    """What looks like a person's address, number or id."""
    other_language: Action = "off"
    """Instruction or output is in none of `languages`. Needs the extra `lang`."""


class CorrectnessConfig(_Actions):
    """Checks of outputs that can be checked, with the same actions."""

    wrong_arithmetic: Action = "reject"
    """A sum in the output is wrong, or the result asked for is not there."""
    wrong_solution: Action = "reject"
    """The output does not solve the equation."""
    invalid_format: Action = "reject"
    """The output does not parse as the JSON, XML, CSV or YAML asked for."""
    invalid_python: Action = "reject"
    """The output's Python does not compile."""
    failing_python: Action = "off"
    """The output's Python fails when it is run, in a child process with limits. That is a seat
    belt and no security boundary: see [filters](filters.md#running-code)."""
    wrong_label: Action = "flag"
    """A short answer is none of the labels asked for."""


class SemanticConfig(Strict):
    """Semantic duplicates: the cosine of embeddings of instruction and input."""

    enabled: bool = False
    threshold: float = Field(default=0.9, gt=0, le=1)
    """Rejected from this cosine up."""
    model: str = "minilm"
    """`minilm` ships with the extra `semantic`; else a sentence-transformers folder, or a Hub id
    that is in the cache of this machine."""


class GroundedConfig(Strict):
    """Answers that say what their passage does not; for records written from documents."""

    enabled: bool = True
    precision: float = Field(default=0.3, ge=0, le=1)
    """Least share of the output's words that come in the passage. Counted are words of four
    letters and more that the instruction does not have."""
    figures: bool = True
    """Reject an output with a figure in digits that is in neither passage nor instruction."""
    references: list[str] = Field(
        default_factory=lambda: [
            "the passage",
            "this passage",
            "the excerpt",
            "this excerpt",
            "in the text",
            "according to the text",
            "the text says",
            "the text states",
            "the text mentions",
            "provided text",
            "given text",
            "provided document",
            "given document",
            "provided context",
            "given context",
            "provided information",
            "according to the document",
            "according to this document",
        ]
    )
    """Reject what has one of these phrases, in instruction or output: its reader does not see the
    passage. For other languages, give theirs."""


class FiltersConfig(Strict):
    """What a candidate must pass, in the order of the fields here."""

    min_words: int = Field(default=3, ge=0)
    """Words an instruction must have. Counted as characters / 2 where a script has no spaces."""
    max_words: int = Field(default=150, ge=1)
    wording: WordingConfig = Field(default_factory=WordingConfig)
    copied: bool = True
    """Reject copies of the examples that the prompt showed."""
    grounded: GroundedConfig = Field(default_factory=GroundedConfig)
    rules: RulesConfig = Field(default_factory=RulesConfig)
    correctness: CorrectnessConfig = Field(default_factory=CorrectnessConfig)
    conflicting: bool = True
    """Reject an instruction and input that were kept already with another output."""
    rouge: RougeConfig = Field(default_factory=RougeConfig)
    minhash: MinHashConfig = Field(default_factory=MinHashConfig)
    semantic: SemanticConfig = Field(default_factory=SemanticConfig)
