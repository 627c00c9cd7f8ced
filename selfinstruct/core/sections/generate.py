"""The sections `seeds` and `generate`: from which examples, how many records, asked for how."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from selfinstruct.core.sections.strict import Strict


class SeedSource(Strict):
    """A file or folder of human-written examples."""

    path: str = Field(min_length=1)
    """JSONL, JSON, CSV, Parquet or a `datasets` folder."""
    private: bool = False
    """A private source goes to a remote teacher only with `allow_remote: true`."""
    allow_remote: bool = False
    """The owner's leave to send this private source to a remote teacher."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Read at most this many examples."""


class DocumentSource(Strict):
    """A document, or a folder of them, to write questions and answers from."""

    path: str = Field(min_length=1)
    """Text, Markdown, HTML, PDF or Word (`.txt`, `.md`, `.html`, `.pdf`, `.docx`); a folder is
    read with all below it."""
    private: bool = False
    """A private source goes to a remote teacher only with `allow_remote: true`."""
    allow_remote: bool = False
    """The owner's leave to send this private source to a remote teacher."""
    words: int = Field(default=250, ge=20, le=4000)
    """Words of a passage at most: what the teacher sees at a time."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take at most this many passages."""


class StrategyConfig(Strict):
    """One way of asking the teacher for new tasks."""

    kind: Literal["alpaca", "self-instruct", "json", "magpie", "documents"]
    """`alpaca`: many numbered tasks per reply. `self-instruct`: the classic mix of 6 human and up
    to 2 machine instructions, then an answer. `json`: one task as JSON, constrained by a schema
    where the server can. `magpie`: only the user header as prompt, then an answer. `documents`:
    questions and answers from a passage of `documents`."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the requests, relative to the other strategies."""
    prompt: str | None = None
    """Prompt file; the shipped one of that name where not given."""
    examples: int | None = Field(default=None, ge=1, le=64)
    """Examples shown in the prompt. Alpaca shows 3, Self-Instruct 8, json and documents 2."""
    machine_examples: int | None = Field(default=None, ge=0, le=32)
    """How many of the examples may be machine-written records kept so far."""
    tasks_per_request: int = Field(default=20, ge=1, le=100)
    """For `alpaca`: number the list runs to, examples included."""
    questions: int = Field(default=3, ge=1, le=20)
    """For `documents`: questions asked for about a passage at a time."""
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
