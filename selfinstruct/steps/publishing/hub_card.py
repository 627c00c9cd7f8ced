"""The dataset card: README.md with the front matter that the Hub and `datasets` read.

Field names of the front matter are those of `huggingface_hub.DatasetCardData`. The text says only
what the run's own ledger says; it holds no date, so the same run gives the same card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import yaml

from selfinstruct.core.money import show
from selfinstruct.steps.publishing.card_facts import DatasetFacts, Source

SAMPLE_CHARACTERS = 600
SOURCES_LISTED = 20
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


class Described(Protocol):
    """What any dataset's card tells; `files` maps config and split to rows."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def license(self) -> str: ...  # noqa: D102
    @property
    def language(self) -> list[str]: ...  # noqa: D102
    @property
    def files(self) -> dict[str, dict[str, int]]: ...  # noqa: D102


def split_file(config: str, split: str) -> str:
    """Where a split lies in the dataset folder, as the Hub names its shards."""
    folder = "data" if config == "default" else config
    return f"{folder}/{split}-00000-of-00001.parquet"


def dataset_card(facts: DatasetFacts) -> str:
    """The whole README.md."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {facts.name}",
        _summary(facts),
        _loading(facts),
        _making(facts),
        _funnel(facts),
        _price(facts),
        _samples(facts),
        _limits(facts),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: DatasetFacts) -> dict[str, Any]:
    """The card's metadata."""
    made = ["machine-generated", "other"] if facts.human else ["machine-generated"]
    tags = ["synthetic", "self-instruct", "instruction-tuning", "selfinstruct"]
    return metadata(facts, made, tags)


def metadata(facts: Described, made: list[str], tags: list[str]) -> dict[str, Any]:
    """What the front matter of any dataset says; `made` is by whom, as the Hub calls them."""
    configs = [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": split_file(config, split)} for split in splits],
        }
        for config, splits in facts.files.items()
    ]
    return {
        "pretty_name": facts.name,
        "license": facts.license,
        "language": facts.language,
        "size_categories": [size_category(sum(facts.files["default"].values()))],
        "task_categories": ["text-generation"],
        "annotations_creators": made,
        "language_creators": list(made),
        "source_datasets": ["original"],
        "tags": tags,
        "configs": configs,
    }


def size_category(records: int) -> str:
    """The Hub's name for a dataset of so many records."""
    return next((name for limit, name in SIZES if records < limit), "100M<n<1B")


def _summary(facts: DatasetFacts) -> str:
    train, held_out = facts.files["default"]["train"], facts.files["default"].get("test", 0)
    models = sorted({writer.model or writer.teacher for writer in facts.writers})
    text = (
        f"{train + held_out:,} instructions with answers: {train:,} to train on and "
        f"{held_out:,} held out. They were written by a language model "
        f"({', '.join(f'`{model}`' for model in models)}) that was shown {_shown(facts)}, and "
        "kept if they passed the checks listed below. "
        "No person has read them all."
    )
    if facts.human:
        text += (
            f" {facts.human:,} of the training records are the human examples themselves "
            '(`source` is "human").'
        )
    return text


def _shown(facts: DatasetFacts) -> str:
    """What the teacher saw."""
    seeds = sum(source.examples for source in facts.sources)
    passages = sum(source.examples for source in facts.documents)
    shown = [f"some of {seeds:,} human-written examples"] if seeds else []
    shown += [f"{passages:,} passages of documents"] if passages else []
    return " and ".join(shown) or "no examples"


def _loading(facts: DatasetFacts) -> str:
    rows = [
        (f"`{config}`", f"`{split}`", f"{count:,}")
        for config, splits in facts.files.items()
        for split, count in splits.items()
    ]
    rejects, rejected = "", ""
    if "rejected" in facts.files:
        rejects = '\nrejects = load_dataset("PATH_OR_REPOSITORY", "rejected")'
        rejected = """
- `rejected` has what was thrown away, with `reason`, `detail`, and the `neighbour` it was too close
  to with the `score`. It is there to check the checks, not to train on."""
    system = " after a system prompt" if facts.system_prompt else ""
    lines = ", ".join(f"`{split}.jsonl`" for split in facts.files["default"])
    return f"""## Use

```python
from datasets import load_dataset

dataset = load_dataset("PATH_OR_REPOSITORY")
conversations = load_dataset("PATH_OR_REPOSITORY", "messages"){rejects}
```

{table_of(("config", "split", "rows"), rows)}

- `default` has `instruction`, `input` (may be empty) and `output`, then where a record comes from:
  `category`, `strategy` (how the teacher was asked), `teacher`, `model`, `parents` (ids of the
  examples, records and passages in the prompt), `prompt_version`, `requests` (ids of the calls),
  `cost_usd` (its share of their price) and `source` ("machine" or "human").
- `messages` has the same records as conversations{system}.{rejected}

The same records for other tools: {lines}, and `alpaca.json` (training split)."""


def _making(facts: DatasetFacts) -> str:
    writers = [
        (
            cell(w.teacher),
            cell(w.model),
            cell(w.strategy),
            cell(w.prompt_version),
            f"{w.kept:,}",
        )
        for w in facts.writers
    ]
    checks = "\n".join(f"- {check}" for check in facts.checks)
    return f"""## How it was made

The teacher:

{table_of(("teacher", "model", "strategy", "prompt", "kept"), writers)}

{_sources("The human examples:", "source", "examples", facts.sources)}\
{_sources("The documents:", "document", "passages", facts.documents)}\
A record had to pass, in this order:

{checks}

{held_out_said(facts.files, facts.moved_to_train)}

Made with selfinstruct {facts.version}, after
[Self-Instruct](https://arxiv.org/abs/2212.10560) and
[Alpaca](https://github.com/tatsu-lab/stanford_alpaca)."""


def _sources(said: str, what: str, gave: str, sources: Sequence[Source]) -> str:
    """A table of sources under `said`, with an empty line after it; nothing where there are none.

    Of more than `SOURCES_LISTED` the rest is one row.
    """
    if not sources:
        return ""
    rows = [
        (cell(s.name) if s.name else "a private source", f"{s.examples:,}",
         "private" if s.private else "open")
        for s in sources[:SOURCES_LISTED]
    ]  # fmt: skip
    if rest := sources[SOURCES_LISTED:]:
        rows.append((f"{len(rest):,} more", f"{sum(s.examples for s in rest):,}", ""))
    return f"{said}\n\n{table_of((what, gave, 'marked'), rows)}\n\n"


def held_out_said(files: dict[str, dict[str, int]], moved: int) -> str:
    """How the held-out split was drawn."""
    if "test" not in files["default"]:
        return "Nothing is held out."
    return (
        "The held-out split was drawn by a hash of the record's id. A drawn record whose "
        "instruction and input are near those of a training record (ROUGE-L above 0.7, or more "
        "than half of all word 3-grams shared) was moved to the training split: "
        f"{moved:,} were."
    )


def _funnel(facts: DatasetFacts) -> str:
    steps = table_of(("step", "count"), [(name, f"{count:,}") for name, count in facts.funnel])
    candidates = sum(facts.rejected.values())
    if not candidates:
        return f"## What came in and what was kept\n\n{steps}\n\nNothing was rejected."
    rows = [
        (cell(reason), f"{count:,}", f"{count / candidates:.1%}")
        for reason, count in facts.rejected.items()
    ]
    reasons = table_of(("rejected because", "count", "share"), rows)
    return f"## What came in and what was kept\n\n{steps}\n\n{reasons}"


def _price(facts: DatasetFacts) -> str:
    kept = sum(writer.kept for writer in facts.writers)
    total = sum(line.cost for line in facts.costs)
    if not facts.costs:
        return ""
    rows = [
        (cell(line.item), f"{line.quantity:,.10g}", line.unit, show(line.cost),
         "estimated" if line.estimated else "")
        for line in facts.costs
    ]  # fmt: skip
    each = f", {show(total // kept)} for each kept record" if kept else ""
    return f"""## What it cost

{show(total)} in all{each}. Computing time of one's own is not in it.

{table_of(("item", "quantity", "unit", "cost", ""), rows)}"""


def _samples(facts: DatasetFacts) -> str:
    shown = []
    for sample in facts.samples:
        text = json.dumps(
            {name: _clip(value) for name, value in sample.items()}, indent=2, ensure_ascii=False
        )
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        shown.append(f"{fence}json\n{text}\n{fence}")
    return (
        "## Samples\n\nThe first machine-written records of the training split, as they are.\n\n"
        + "\n\n".join(shown)
    )


def _limits(facts: DatasetFacts) -> str:
    points = [
        "Answers may be wrong, outdated or made up. The checks look at form, wording and "
        "repetition; none of them knows what is true.",
        "The teacher's habits, gaps and biases are in the records, and so are those of the human "
        "examples, whose topics the records follow.",
        "The held-out split comes from the same teacher. A good result on it says that a student "
        "imitates this teacher, not that its answers are right.",
        "Records below the checks' thresholds can still resemble each other, or texts that the "
        "teacher was trained on.",
        "Nobody removed personal or harmful content by hand.",
    ]
    if facts.license == "other":
        points.append(
            "No licence was chosen. Settle one before you pass the dataset on, and see whether the "
            "terms of the teacher's provider allow training on its output."
        )
    else:
        points.append(
            "The licence is that of whoever made the dataset; the terms of the teacher's provider "
            "may restrict what its output is used for."
        )
    if any(source.private for source in facts.sources):
        points.append(
            "Some of the human examples are private. Records were written with them in view, and "
            "rejected ones may be copies of them: read both before you pass anything on."
        )
    if any(document.private for document in facts.documents):
        points.append(
            "Some of the documents are private, and the records say what they say: whoever has the "
            "dataset, or a model trained on it, has their content."
        )
    return "## Limitations\n\n" + "\n".join(f"- {point}" for point in points)


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """`text` as code in a table's cell."""
    plain = " ".join(text.replace("|", "/").replace("`", "'").split())
    return f"`{plain}`" if plain else ""


def _clip(text: str) -> str:
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + " [...]"
