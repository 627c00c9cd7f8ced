"""The student's model card: README.md with the front matter that the Hub reads.

Field names of the front matter are those of `huggingface_hub.ModelCardData`. The text says what was
done and measured, and claims nothing that was not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from selfinstruct.core.money import show
from selfinstruct.steps.training.summary import Later, TrainSummary


class StudentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the card says: `training` as it was done, and what the recipe says around it.

    `dataset_repo` is "" where the data is not on the Hub. `cost` is in picodollars.
    """

    name: str
    dataset_repo: str
    dataset_license: str
    settings: dict[str, Any]
    cost: int
    same_as_teacher: bool
    generated: bool = True
    training: TrainSummary

    @property
    def base(self) -> str:
        """The base as the Hub knows it, else its bare name."""
        return self.training.base_hub_id or Path(self.training.base).name


def student_card(facts: StudentFacts, *, kind: Literal["adapter", "merged"]) -> str:
    """The card as text, for the adapter or for the whole model."""
    front = yaml.safe_dump(front_matter(facts, kind), sort_keys=False, allow_unicode=True)
    body = "\n\n".join(
        [
            f"# {facts.name}",
            _summary(facts, kind),
            "## Use",
            _usage(facts, kind),
            "## Training",
            _training(facts),
            "## Limits",
            _limits(facts),
        ]
    )
    return f"---\n{front}---\n\n{body}\n"


def front_matter(facts: StudentFacts, kind: Literal["adapter", "merged"]) -> dict[str, Any]:
    """The card's metadata; what is not known is left out."""
    front: dict[str, Any] = {}
    if facts.training.base_hub_id:
        front["base_model"] = facts.training.base_hub_id
        front["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    front["library_name"] = "peft" if kind == "adapter" else "transformers"
    front["pipeline_tag"] = "text-generation"
    front["license"] = facts.training.base_license or "other"
    if facts.dataset_repo:
        front["datasets"] = [facts.dataset_repo]
    front["tags"] = ["selfinstruct", "sft", "instruction-tuning"]
    front["tags"] += [{"preference": "dpo"}.get(one.kind, one.kind) for one in facts.training.later]
    front["tags"] += [] if facts.training.method == "full" else [facts.training.method]
    return front


def _summary(facts: StudentFacts, kind: str) -> str:
    what = {
        "adapter": "A LoRA adapter for",
        "merged": "A whole model fine-tuned from",
    }[kind]
    data = f"`{facts.dataset_repo}`" if facts.dataset_repo else "a dataset that is not public"
    return (
        f"{what} `{facts.base}`, trained on {facts.training.train_records:,} "
        f"instruction records of {data}."
    )


def _usage(facts: StudentFacts, kind: str) -> str:
    base = facts.training.base_hub_id or "path/to/base"
    commit = facts.training.base_commit
    if kind == "adapter":
        at = f', revision="{commit}"' if commit else ""
        load = (
            f'base = AutoModelForCausalLM.from_pretrained("{base}"{at})\n'
            'model = PeftModel.from_pretrained(base, "path/to/adapter")\n'
        )
        imports = "from peft import PeftModel\n"
        where = "path/to/adapter"
    else:
        load, imports, where = (
            'model = AutoModelForCausalLM.from_pretrained("path/to/model")\n',
            "",
            ("path/to/model"),
        )
    code = (
        f"{imports}from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{where}")\n{load}'
    )
    return (
        f"```python\n{code}```\n\nThe student was trained on prompts of this form, and answers "
        f"best in it:\n\n{_fenced(facts.training.prompt)}"
    )


def _training(facts: StudentFacts) -> str:
    done = facts.training
    first, last = done.losses[0].loss, done.losses[-1].loss
    rows = [
        *([("commit of the base", f"`{done.base_commit}`")] if done.base_commit else []),
        *([("chat template", _template(done.chat_template))] if done.chat_template else []),
        ("method", done.method),
        *((name.replace("_", " "), value) for name, value in facts.settings.items()),
        ("records", f"{done.train_records:,}"),
        ("of them cut at the maximum length", f"{done.truncated:,}"),
        ("left out, their prompt alone being too long", f"{done.fully_masked:,}"),
        ("optimizer steps", f"{done.steps:,}"),
        ("tokens", f"{done.tokens:,}"),
        ("of them with loss", f"{done.useful_tokens:,}"),
        (
            "training loss, first and last step",
            f"{first:.3f}, {last:.3f}",
        ),
        *(_later(one) for one in done.later),
        ("time", f"{done.seconds / 3600:.2f} hours on {done.device}"),
        ("cost of the machine", show(facts.cost)),
        ("libraries", ", ".join(f"{name} {v}" for name, v in done.versions.items())),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _template(name: str) -> str:
    return f"`{name}`, which is saved with the tokenizer; not the base's own"


def _later(one: Later) -> tuple[str, str]:
    """A row about a training after fine-tuning; a path stays on this machine."""
    first, last = one.losses[0].loss, one.losses[-1].loss
    what = {"distillation": "prompts", "preference": "pairs"}[one.kind]
    source = f"{one.source}@{one.commit}" if one.commit else Path(one.source).name
    return (
        f"then: {one.kind}",
        f"{len(one.losses):,} steps on {one.records:,} {what} ({source}); "
        f"its loss went from {first:.3f} to {last:.3f}",
    )


def _limits(facts: StudentFacts) -> str:
    notes = []
    if facts.generated:
        notes.append(
            "Records that a machine wrote were checked by filters, not by people: errors and bias "
            "of the teacher are passed on."
        )
    if not facts.training.base_license:
        notes.append("The base's licence is not known here; it applies to this model too.")
    if facts.dataset_license == "other":
        notes.append("No licence was set for the training records.")
    if facts.same_as_teacher:
        notes.append(
            "Teacher and base are the same model, so it learned from nobody better: "
            "this student shows that the pipeline works, not that it got better at anything."
        )
    return "\n".join(f"- {note}" for note in notes)


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
