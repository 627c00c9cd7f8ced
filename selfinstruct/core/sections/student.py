"""The sections `student` and `evaluate`: how a base is fine-tuned, and how it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfinstruct.core.sections.strict import Strict


class DistillationConfig(Strict):
    """After fine-tuning: the student answers, and learns a local teacher's probabilities for each
    next token of its own answers (on-policy distillation)."""

    teacher: str
    """A model of the base's family, named as `base` is; it must have the same tokens."""
    revision: str | None = Field(default=None, min_length=1)
    """The commit, tag or branch of a teacher on the Hub, as for the base."""
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


def usual_rate(given: Mapping[str, Any]) -> float:
    """The field's usual learning rate by method: QLoRA's and Alpaca's for 7B."""
    return 2e-5 if given.get("method") == "full" else 2e-4


class StudentConfig(Strict):
    """The small model that is fine-tuned."""

    base: str = Field(min_length=1)
    """A model folder, a Hub id, a GGUF file, or `smollm2-135m-instruct`."""
    revision: str | None = Field(default=None, min_length=1)
    """The commit, tag or branch of a base on the Hub; its main branch where not given."""
    method: Literal["lora", "qlora", "full"] = "lora"
    """`lora` trains a small adapter beside the frozen base, `qlora` the same beside a base held in
    4 bits (extra `qlora`), `full` all weights."""
    epochs: float = Field(default=3.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps at most, whatever `epochs` says."""
    learning_rate: float = Field(default_factory=usual_rate, gt=0)
    """The highest of the training. Where not given: 2e-4 for an adapter, 2e-5 for `full`, which
    bears less."""
    batch_size: int = Field(default=16, ge=1)
    """Examples per optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Examples per forward pass and device; `auto` takes what fits and has the least to compute,
    padding included, and fewer when memory runs out. The result is that of `batch_size`, up to
    rounding."""
    max_length: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    """Tokens of prompt and answer; longer examples are truncated, and counted. `auto` is what 99%
    of the records need, within what the base can read."""
    conversations: str | None = None
    """A file or folder of conversations, trained on together with the run's records: `messages`
    of any number of turns, each answer learned."""
    chat_template: str | None = None
    """A Jinja file that writes conversations instead of the base's own template, or where it has
    none; saved with the student."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How the learning rate goes after the warmup. `wsd` (warmup, stable, decay) falls in the last
    `decay_ratio` of the steps alone."""
    decay_ratio: float | None = Field(default=None, gt=0, le=1)
    """Share of the steps in which `wsd` falls, in a straight line: 0.1 where not given."""
    min_learning_rate_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the learning rate that `cosine` and `wsd` fall to."""
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """How much of its mean gradient AdamW keeps at a step."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """How much of its mean squared gradient AdamW keeps: 0.95 is usual for large models."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Modules that get an adapter: all linear ones but the head, or a list of names such as
    `[q_proj, v_proj]`."""
    lora_whole: list[str] = Field(default_factory=list)
    """Modules that are trained whole and saved with the adapter, such as `[lm_head]`."""
    lora_rslora: bool = False
    """Scale the adapter by alpha / sqrt(rank) instead of alpha / rank: for high ranks."""
    lora_dora: bool = False
    """Train the weights' magnitude apart from their direction (DoRA): for low ranks; slower."""
    lora_plus_ratio: float | None = Field(default=None, ge=1)
    """How many times the learning rate the adapter's second matrices get (LoRA+, Hayou et al.
    2024): 16 there. Where not given, both have the same."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """A step whose gradients together are longer than this is scaled down to it; 0 never does."""
    neftune_alpha: float | None = Field(default=None, gt=0)
    """Noise on the embeddings in fine-tuning (NEFTune, Jain et al. 2023): 5, 10 and 15 there. It
    goes by the length of a row, so examples are then not packed."""
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

    @property
    def base_name(self) -> str:
        """The base for people, with its revision where one is asked for."""
        return self.base if self.revision is None else f"{self.base}@{self.revision}"

    @model_validator(mode="after")
    def _measured(self) -> StudentConfig:
        if self.early_stopping_patience is not None and self.eval_steps is None:
            raise ValueError("early_stopping_patience needs eval_steps, such as 50")
        if self.neftune_alpha is not None and self.packing is True:
            raise ValueError("neftune_alpha goes by the length of a row: set packing to false")
        if self.lora_plus_ratio is not None and self.method == "full":
            raise ValueError("lora_plus_ratio is for an adapter, which method full has not")
        return self

    @model_validator(mode="after")
    def _scheduled(self) -> StudentConfig:
        if self.min_learning_rate_ratio and self.scheduler not in ("cosine", "wsd"):
            raise ValueError("min_learning_rate_ratio is for the schedulers cosine and wsd")
        if self.decay_ratio is not None and self.scheduler != "wsd":
            raise ValueError("decay_ratio is for the scheduler wsd")
        if self.warmup_ratio + (self.decay_ratio or 0) > 1:
            raise ValueError("warmup_ratio and decay_ratio are more than all steps: lower one")
        return self


class EvaluateConfig(Strict):
    """The before/after measurement."""

    samples: int = Field(default=4, ge=0)
    """Held-out prompts answered by base and student, shown side by side."""
    max_new_tokens: int = Field(default=96, ge=1)
    max_records: int = Field(default=200, ge=1)
    """Held-out records measured at most."""
