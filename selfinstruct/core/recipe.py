"""The recipe: everything a run does, as YAML checked by a strict model.

An unknown key is an error that names the nearest known one. Relative paths in a recipe are relative
to the folder the command runs in; a path that is not there is looked for among the files shipped
with the package, so that ``seeds/general.jsonl`` works in a project and from an installed wheel.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


class Strict(BaseModel):
    """A section of a recipe: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SeedSource(Strict):
    """A file or folder of human-written examples."""

    path: str
    """JSONL, JSON, CSV, Parquet or a `datasets` folder."""
    private: bool = False
    """A private source goes to a remote teacher only with `allow_remote: true`."""
    allow_remote: bool = False
    """The owner's leave to send this private source to a remote teacher."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Read at most this many examples."""


class Price(Strict):
    """Dollars per million tokens, as decimals."""

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cached: Decimal | None = Field(default=None, ge=0)
    """Cached input; the input price where not given."""
    cache_write: Decimal | None = Field(default=None, ge=0)
    """Writing to the provider's cache; the input price where not given."""
    batch: Decimal = Field(default=Decimal(1), gt=0, le=1)
    """What the batch API costs of these prices: 0.5 for half."""


# Settings of a teacher that only some kinds have; with another kind they are an error.
_OF_KINDS = {
    "api_version": ("azure",),
    "deployment": ("azure",),
    "region": ("bedrock", "vertex"),
    "project": ("vertex",),
    "args": ("vllm",),
}


class TeacherConfig(Strict):
    """A model that answers requests."""

    kind: Literal[
        "openai",
        "anthropic",
        "azure",
        "bedrock",
        "vertex",
        "compatible",
        "local",
        "vllm",
        "scripted",
    ]
    """`openai` and `anthropic` use the official SDKs, `azure` (OpenAI's models), `bedrock` and
    `vertex` (Claude) the same ones; `compatible` is any OpenAI-compatible server; `local` serves a
    GGUF file on this machine and `vllm` a model on its GPUs; `scripted` replays a file, for dry
    runs."""
    model: str = ""
    """The model's name as the server knows it. For `local`: a GGUF file's path, or
    `smollm2-135m-instruct`, which is fetched once. For `vllm`: a model folder or a Hub id. For
    `scripted`: a JSONL file of replies."""
    base_url: str | list[str] | None = None
    """Where the server is, such as `http://localhost:8000/v1`. Required for `compatible`, which
    takes a list of servers of one model too. For `azure`: the resource, such as
    `https://NAME.openai.azure.com`."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key; the key itself is never stored."""
    api_key_file: str | None = None
    """A file that holds the key and nothing else; it goes before `api_key_env`. It is read again
    when the server refuses the key in mid-run, so a key may be renewed."""
    api_version: str | None = None
    """For `azure`: the API's version, such as `2024-10-21`. Required there."""
    deployment: str | None = None
    """For `azure`: the deployment's name; the model's where not given."""
    region: str | None = None
    """For `bedrock` and `vertex`; AWS_REGION or CLOUD_ML_REGION where not given."""
    project: str | None = None
    """For `vertex`: the project; ANTHROPIC_VERTEX_PROJECT_ID where not given."""
    args: list[str] = Field(default_factory=list)
    """For `vllm`: more arguments of `vllm serve`, such as `[--max-model-len, "8192"]`."""
    sha256: str | None = None
    """For `local`: the checksum the GGUF file must have."""
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)
    """Tokens of a reply at most; also what the money cap reserves for each call."""
    concurrency: int = Field(default=16, ge=1, le=4096)
    """Calls in flight at once, at most. A server that is not on this machine gets 8 at first, more
    while all goes well, and fewer when it says "too fast" (429)."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests sent per minute, at most. What the server's own headers allow counts besides."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """The same for tokens, those of prompts and replies together."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds after which an attempt is given up, from sending to the last byte."""
    stall_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds without a byte after which a reply that has begun is given up."""
    patience_s: float = Field(default=300.0, ge=0)
    """Seconds for which a server that has answered before is waited for when it is gone."""
    max_attempts: int = Field(default=8, ge=1)
    """Attempts at one request before it is recorded as failed."""
    context: int = Field(default=4096, ge=512)
    """For `local`: tokens of context per parallel call."""
    threads: int | None = Field(default=None, ge=1)
    """For `local`: processor threads; all but one where not given."""
    gpu_layers: int = -1
    """For `local`: layers put on a GPU where there is one; -1 for all."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More of the request's body, sent as it is. For `compatible`, null leaves a field out that the
    server does not take, such as `{seed: null}`."""

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.kind == "compatible" and not self.base_url:
            raise ValueError(
                "a compatible teacher needs base_url, such as http://localhost:8000/v1"
            )
        if self.kind == "azure" and not (self.base_url and self.api_version):
            raise ValueError(
                "an azure teacher needs base_url, such as https://NAME.openai.azure.com, and "
                "api_version, such as 2024-10-21"
            )
        if not self.model:
            raise ValueError(f"a teacher of kind {self.kind!r} needs model")
        if isinstance(self.base_url, list):
            if self.kind != "compatible":
                raise ValueError("a list of base_url is for a teacher of kind compatible")
            if len(set(self.base_url)) < max(1, len(self.base_url)):
                raise ValueError("base_url names a server twice, or none")
        for name, kinds in _OF_KINDS.items():
            if getattr(self, name) and self.kind not in kinds:
                raise ValueError(f"{name} is for a teacher of kind {' or '.join(kinds)}")
        return self

    @property
    def base_urls(self) -> list[str]:
        """The servers' addresses; none for the kind's own."""
        if isinstance(self.base_url, list):
            return self.base_url
        return [self.base_url] if self.base_url else []

    @property
    def address(self) -> str | None:
        """The only server's address; None for the kind's own."""
        return self.base_url if isinstance(self.base_url, str) else None


class StrategyConfig(Strict):
    """One way of asking the teacher for new tasks."""

    kind: Literal["alpaca", "self-instruct", "json", "magpie"]
    """`alpaca`: many numbered tasks per reply. `self-instruct`: the classic mix of 6 human and up
    to 2 machine instructions, then an answer. `json`: one task as JSON, constrained by a schema
    where the server can. `magpie`: only the user header as prompt, then an answer."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the requests, relative to the other strategies."""
    prompt: str | None = None
    """Prompt file; the shipped one of that name where not given."""
    examples: int | None = Field(default=None, ge=1, le=64)
    """Examples shown in the prompt. Alpaca shows 3, Self-Instruct 8, json 2."""
    machine_examples: int | None = Field(default=None, ge=0, le=32)
    """How many of the examples may be machine-written records kept so far."""
    tasks_per_request: int = Field(default=20, ge=1, le=100)
    """For `alpaca`: number the list runs to, examples included."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Overrides the teacher's temperature."""
    answer_temperature: float | None = Field(default=None, ge=0, le=2)
    """Temperature of the second call of `self-instruct` and `magpie`: lower gives plainer answers
    than the one that makes instructions diverse."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Overrides the teacher's max_tokens."""


class GenerateConfig(Strict):
    """How many records, and at what price at most."""

    target: int = Field(default=1000, ge=1)
    """Kept records to reach; seeds are not counted."""
    strategies: list[StrategyConfig] = Field(
        default_factory=lambda: [StrategyConfig(kind="alpaca")], min_length=1
    )
    window: int | None = Field(default=None, ge=1)
    """Slots that may be open past the last judged one. The dataset depends on it and on nothing
    else of the speed. 16 times the teacher's concurrency where not given."""
    max_cost: Decimal | None = Field(default=None, ge=0)
    """Dollars that are never passed, all stages that call a teacher together."""
    no_price: bool = False
    """Run although no price is known for the model; the bill then counts its tokens only."""
    max_requests: int | None = Field(default=None, ge=1)
    """Slots to open at most, whatever was kept."""
    give_up_after: int = Field(default=200, ge=1)
    """Stop when this many slots in a row have kept nothing."""
    batch_answers: bool = False
    """Answer the instructions of `self-instruct` and `magpie` through the provider's batch API
    (`openai`, `anthropic`): about half the price, within a day. All answers of a window go out
    together, so set `window` to the size of a round, such as 2000."""
    adapt: bool = True
    """When the share kept falls, show more machine-written examples and other seeds, raise the
    temperature and favour the strategies that still bring records."""
    max_cost_per_record: Decimal | None = Field(default=None, ge=0)
    """Stop when one more kept record has come to cost more dollars than this, over the last 60
    slots."""


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


class FiltersConfig(Strict):
    """What a candidate must pass, in the order of the fields here."""

    min_words: int = Field(default=3, ge=0)
    """Words an instruction must have. Counted as characters / 2 where a script has no spaces."""
    max_words: int = Field(default=150, ge=1)
    wording: WordingConfig = Field(default_factory=WordingConfig)
    copied: bool = True
    """Reject copies of the examples that the prompt showed."""
    rules: RulesConfig = Field(default_factory=RulesConfig)
    correctness: CorrectnessConfig = Field(default_factory=CorrectnessConfig)
    conflicting: bool = True
    """Reject an instruction and input that were kept already with another output."""
    rouge: RougeConfig = Field(default_factory=RougeConfig)
    minhash: MinHashConfig = Field(default_factory=MinHashConfig)
    semantic: SemanticConfig = Field(default_factory=SemanticConfig)


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

    @model_validator(mode="after")
    def _whole(self) -> SelectConfig:
        if self.method == "top_k" and self.score is None:
            raise ValueError("method top_k needs a score to go by, such as score: output_words")
        if "reward" in (self.score, *self.scores) and self.reward_model is None:
            raise ValueError("the score reward needs a reward_model")
        if self.method in ("k_center", "facility_location"):
            if self.count is None:
                raise ValueError(f"method {self.method} needs a count")
            if self.min_distance:
                raise ValueError(f"method {self.method} takes no min_distance")
        if self.topics is not None and (self.quota is None or self.quota_by != "topic"):
            raise ValueError("topics needs a quota, and quota_by: topic")
        return self


class DatasetConfig(Strict):
    """The dataset folder in the Hub's format."""

    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records kept from training, without near-duplicates in the training split."""
    license: str = "other"
    """The licence's identifier as the Hub knows it."""
    language: list[str] = Field(default_factory=lambda: ["en"])
    include_seeds: bool = False
    """Add the human seeds to the training split, marked as such."""
    system_prompt: str = ""
    """First message of every conversation of the `messages` config, where not empty."""


class DistillationConfig(Strict):
    """After fine-tuning: the student answers, and learns a local teacher's probabilities for each
    next token of its own answers (on-policy distillation)."""

    teacher: str
    """A model of the base's family, named as `base` is; it must have the same tokens."""
    epochs: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=2e-5, gt=0)
    beta: float = Field(default=0.5, ge=0, le=1)
    """0 is the forward KL divergence, 1 the reverse, between them Jensen-Shannon's."""
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=128, ge=1)
    """Tokens of the student's answers at most."""


class PreferenceConfig(Strict):
    """After fine-tuning and distillation: direct preference optimization (DPO)."""

    data: str
    """A file or folder of pairs: `prompt`, or `instruction` and `input`, with `chosen` and
    `rejected`."""
    epochs: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=5e-6, gt=0)
    beta: float = Field(default=0.1, gt=0)
    """How strongly the student is held to what fine-tuning made of it."""


def _usual_rate(given: Mapping[str, Any]) -> float:
    """The field's usual learning rate by method: QLoRA's and Alpaca's for 7B."""
    return 2e-5 if given.get("method") == "full" else 2e-4


class StudentConfig(Strict):
    """The small model that is fine-tuned."""

    base: str
    """A model folder, a Hub id, a GGUF file, or `smollm2-135m-instruct`."""
    method: Literal["lora", "qlora", "full"] = "lora"
    """`lora` trains a small adapter beside the frozen base, `qlora` the same beside a base held in
    4 bits (extra `qlora`), `full` all weights."""
    epochs: float = Field(default=3.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps at most, whatever `epochs` says."""
    learning_rate: float = Field(default_factory=_usual_rate, gt=0)
    """The highest of the training. Where not given: 2e-4 for an adapter, 2e-5 for `full`, which
    bears less."""
    batch_size: int = Field(default=16, ge=1)
    """Examples per optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Examples per forward pass and device; `auto` takes the most that fit, and fewer when memory
    runs out. The result is that of `batch_size`, up to rounding."""
    max_length: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    """Tokens of prompt and answer; longer examples are truncated, and counted. `auto` is what 99%
    of the records need, within what the base can read."""
    conversations: str | None = None
    """A file or folder of conversations, trained on together with the run's records: `messages`
    of any number of turns, each answer learned."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_targets: Literal["all-linear"] | list[str] = "all-linear"
    """Modules that get an adapter: all linear ones but the head, or a list of names such as
    `[q_proj, v_proj]`."""
    lora_whole: list[str] = Field(default_factory=list)
    """Modules that are trained whole and saved with the adapter, such as `[lm_head]`."""
    lora_rslora: bool = False
    """Scale the adapter by alpha / sqrt(rank) instead of alpha / rank: for high ranks."""
    lora_dora: bool = False
    """Train the weights' magnitude apart from their direction (DoRA): for low ranks; slower."""
    save_steps: int = Field(default=50, ge=1)
    """A checkpoint each so many steps."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    merge: bool = True
    """Also write the student as one model, adapter merged."""
    sparse_head: bool = True
    """On a processor, run the output layer only where an answer's token is predicted: the same loss
    for less work. A model that scales its logits keeps TRL's own loss."""
    attention: Literal[
        "auto", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "eager"
    ] = "auto"
    """What computes attention. `auto` is FlashAttention where it is installed and the base and the
    GPU have it, else PyTorch's own (`sdpa`)."""
    packing: bool | Literal["auto"] = "auto"
    """Lay the examples of a micro-batch one after another in one row, without padding; the steps
    are the same. `auto` does so with FlashAttention or flex attention. Refused where attention lets
    examples see each other."""
    compile: bool = False
    """Compile the model with torch.compile: slow to begin, worth it for long trainings on a GPU."""
    liger: bool | Literal["auto"] = "auto"
    """Liger's kernels (extra `liger`) for norms, rotary positions and MLPs; `auto` uses them on
    CUDA where they are installed and know the base."""
    recompute: bool | Literal["auto"] = "auto"
    """Work activations out again in the backward pass instead of keeping them: less memory, about a
    third more work. `auto` does so above a billion parameters; on CUDA only if they do not fit."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps AdamW's moments in 8 bits (extra `qlora`), a quarter of their memory: for
    `full`. Unlike the settings above it changes the result a little."""
    dataloader_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that prepare batches; `auto` is 2 on CUDA, else none. The order stays the same."""
    gpu_hour_price: Decimal = Field(default=Decimal(0), ge=0)
    """Dollars per hour of this machine, for the bill."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Measure on held-out records each so many steps, and keep the weights that were best; as many
    records and samples as `evaluate` says. Not measured where not given."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many measurements without a better held-out loss."""
    report_to: list[Literal["trackio", "wandb", "tensorboard"]] = Field(default_factory=list)
    """Trackers that are told of each step, if their package is there."""
    distillation: DistillationConfig | None = None
    preference: PreferenceConfig | None = None

    @model_validator(mode="after")
    def _measured(self) -> StudentConfig:
        if self.early_stopping_patience is not None and self.eval_steps is None:
            raise ValueError("early_stopping_patience needs eval_steps, such as 50")
        return self


class EvaluateConfig(Strict):
    """The before/after measurement."""

    samples: int = Field(default=4, ge=0)
    """Held-out prompts answered by base and student, shown side by side."""
    max_new_tokens: int = Field(default=96, ge=1)
    max_records: int = Field(default=200, ge=1)
    """Held-out records measured at most."""


class PublishConfig(Strict):
    """Where dataset and student go."""

    dataset_repo: str | None = None
    """`owner/name` on the Hub."""
    model_repo: str | None = None
    private: bool = True
    endpoint: str | None = None
    """A Hub of your own; the public one where not given."""
    token_env: str = "HF_TOKEN"  # noqa: S105 (a variable's name)


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
    seeds: list[SeedSource] = Field(min_length=1)
    teacher: TeacherConfig
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

    @field_validator("seeds", mode="before")
    @classmethod
    def _paths_are_sources(cls, value: Any) -> Any:
        """A source may be written as its path alone, and one source without a list."""
        if isinstance(value, (str, dict)):
            value = [value]
        if isinstance(value, list):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value
