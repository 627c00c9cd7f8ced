"""The end of the report: settings without secrets, where everything came from, honest limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from selfinstruct.steps.charts.markup import clean, facts, folded, paragraph, table, text
from selfinstruct.steps.charts.numbers import count, percent
from selfinstruct.steps.charts.summary import Covered, Summary

LEFT_OUT = "(left out)"
FEW = 100  # held-out records below which differences may be chance

_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:api_?keys?|keys?|tokens?|secrets?|passwords?|passwd|credentials?|cookies?"
    r"|authorization|auth|bearer)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(?:sk|pk|rk)-[\w-]{12,}|\bhf_\w{12,}|\bgh[pousr]_\w{12,}|\bAKIA[0-9A-Z]{12,}"
    r"|\bAIza[\w-]{20,}|\beyJ[\w-]{8,}\.[\w-]{8,}\S*|(?<=bearer )\S+",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_URL_SECRET = re.compile(r"([?&][^=&\s]*(?:key|token|sig|secret|password)[^=&\s]*=)[^&\s]+", re.I)


def without_secrets(value: Any, name: str = "") -> Any:
    """`value` (plain JSON data) with whatever looks like a secret replaced by "(left out)".

    A recipe names the variables that hold keys, never the keys; this guards against keys that were
    put into `extra`, headers or addresses all the same.
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if _SECRET_NAME.search(name) and value:
        return LEFT_OUT
    plain = _URL_SECRET.sub(rf"\1{LEFT_OUT}", _URL_LOGIN.sub("", value))
    return _SECRET_VALUE.sub(LEFT_OUT, plain)


def settings_section(changed: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """The recipe as YAML: what differs from the defaults, and all of it."""
    return (
        "<h3>What this recipe sets</h3>"
        + _yaml(changed)
        + folded("The whole resolved recipe", _yaml(whole))
    )


def _yaml(value: Mapping[str, Any]) -> str:
    dumped = yaml.safe_dump(without_secrets(value), sort_keys=False, allow_unicode=True, width=90)
    return f'<pre tabindex="0">{text(clean(dumped).rstrip())}</pre>'


def provenance_section(
    summary: Summary | None,
    dataset: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any] | None,
    *,
    generated: bool,
) -> str:
    """Where the records came from, and what names each stage's result."""
    parts = [
        paragraph(
            "Every record names the seeds, records and passages its prompt showed, the prompt's "
            "version, the requests it came from, their cost and the verdict. The ledger (run.db) "
            "holds them with every request and completion; the dataset's columns carry them along."
            if generated
            else "The records were given: nothing was generated and nothing was judged."
        )
    ]
    if summary and summary.kept:
        parts.append(_origins(summary))
        parts.append(_covered(summary.covered))
    parts.append(_artefacts(dataset, training, evaluation))
    return "".join(parts)


def _origins(summary: Summary) -> str:
    rows = [
        (text(kind), f"<code>{text(name)}</code>" if name else "not recorded", count(number),
         percent(number, summary.kept))
        for kind, tally in (
            ("Strategy", summary.strategies),
            ("Teacher", summary.teachers),
            ("Prompt version", summary.prompts),
        )
        for name, number in tally.items()
    ]  # fmt: skip
    human = summary.generations.get(1, 0)
    deepest = max(summary.generations, default=0)
    steps = "step" if deepest == 1 else "steps"
    return table(
        "Origin of the kept records", ("", "Name", "Records", "Share"), rows, numbers=(2, 3)
    ) + paragraph(
        f"{percent(human, summary.kept)} of the kept records had only human examples in their "
        f"prompt, or none. The longest line from a seed to a record has {count(deepest)} {steps}.",
        "note",
    )


def _covered(covered: Covered) -> str:
    """How many passages have records, and some of those that have none."""
    if not covered.passages:
        return ""
    said = (
        f"{count(covered.asked)} of {count(covered.passages)} passages have kept records "
        f"({percent(covered.asked, covered.passages)})."
    )
    items = "".join(f"<li>{text(source)}</li>" for source in covered.bare)
    left = covered.passages - covered.asked - len(covered.bare)
    more = f"<li>and {count(left)} more</li>" if left else ""
    bare = folded("Passages without a record", f"<ul>{items}{more}</ul>") if items else ""
    return paragraph(said, "note") + bare


def _artefacts(
    dataset: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any] | None,
) -> str:
    pairs: list[tuple[str, str]] = []
    if dataset:
        pairs.append(
            (
                "Dataset",
                f"{count(dataset.get('train', 0))} records to train on, "
                f"{count(dataset.get('held_out', 0))} held out"
                + _and(dataset.get("moved_to_train"), "moved to training as near-duplicates")
                + _and(dataset.get("human"), "of them human seeds"),
            )
        )
        pairs.append(("Licence", text(dataset.get("license", "not stated"))))
    for name, stage in (("Dataset", dataset), ("Student", training), ("Evaluation", evaluation)):
        if stage and stage.get("fingerprint"):
            pairs.append((f"{name}'s fingerprint", f"<code>{text(stage['fingerprint'])}</code>"))
    versions = (training or {}).get("versions") or {}
    if versions:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        pairs.append(("Trained with", text(listed)))
    return facts(pairs) if pairs else ""


def _and(number: Any, what: str) -> str:
    return f", {count(number)} {text(what)}" if number else ""


SAME_WEIGHTS = (
    "The teacher and the student's base have the same weights. This run shows that every stage "
    "works and what it costs; no quality is claimed for its dataset or its student."
)


def limits_section(
    summary: Summary | None,
    evaluation: Mapping[str, Any] | None,
    *,
    generated: bool,
    estimated: bool,
    private: bool,
    unfinished: Sequence[str],
) -> str:
    """What the numbers of this page do not show."""
    lines = []
    if evaluation and evaluation.get("same_weights_as_teacher"):
        lines.append(SAME_WEIGHTS)
    if unfinished:
        lines.append(f"Not done yet: {', '.join(unfinished)}. The parts above may still change.")
    if summary and summary.kept:
        lines.append(
            "Filters judge wording, form and repetition. They do not check facts: a kept record "
            "can be wrong, and the samples above are not selected for looking good."
        )
    if evaluation:
        model = "the teacher" if generated else "the records"
        lines.append(
            ("Held-out references were written by the teacher. " if generated else "")
            + f"Loss, perplexity and ROUGE-L say how closely the student follows {model} on tasks "
            "of this kind, not whether its answers are right, and nothing about other tasks."
        )
        if evaluation.get("records", 0) < FEW:
            lines.append(
                f"Only {count(evaluation.get('records', 0))} held-out records were measured: small "
                "differences may be chance."
            )
    if estimated:
        lines.append(
            "Amounts marked as estimated come from servers that reported no usage, or from calls "
            "that may have been billed; the provider's invoice decides."
        )
    if generated:
        lines.append(
            "Verbs and objects are found by rules, for English; other languages are not shown."
        )
    quoted = "This page quotes records of the run"
    lines.append(
        f"{quoted} and sources marked as private. Share it only where those may be shared."
        if private
        else f"{quoted}. Share it only where those may be shared."
    )
    return f'<ul class="limits">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>'
