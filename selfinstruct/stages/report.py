"""The report: one HTML file that shows what a run did, kept, cost and taught.

    selfinstruct report outputs/my-run        writes outputs/my-run/report.html

It is a function of what lies in the run folder and changes nothing else there. What is missing is
said, with the command that makes it. The page loads nothing from anywhere (`steps.charts.page`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from selfinstruct import __version__
from selfinstruct.core.recipe import Recipe
from selfinstruct.core.types import Candidate, SeedTask
from selfinstruct.engine.accounts import BillLine, Funnel, bill, funnel
from selfinstruct.engine.folder import RunFolder, write_atomically
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.spending import Spending, spending
from selfinstruct.steps.charts.bill import money_section, spending_section
from selfinstruct.steps.charts.diversity import diversity_section
from selfinstruct.steps.charts.faults import Found, faults_section
from selfinstruct.steps.charts.markup import not_done, text
from selfinstruct.steps.charts.numbers import count, percent
from selfinstruct.steps.charts.opening import funnel_section, tiles
from selfinstruct.steps.charts.page import Page
from selfinstruct.steps.charts.samples import kept_section, rejected_section
from selfinstruct.steps.charts.settings import (
    SAME_WEIGHTS,
    limits_section,
    provenance_section,
    settings_section,
)
from selfinstruct.steps.charts.student import evaluation_section, training_section
from selfinstruct.steps.charts.summary import Summary, summarize
from selfinstruct.steps.charts.variety import variety_section
from selfinstruct.steps.diversity.measures import Coverage, Diversity, coverage, measure
from selfinstruct.steps.diversity.topics import Topic, can_find_topics, topics_of
from selfinstruct.steps.filters.rules import REASONS


class _Varied(NamedTuple):
    """How varied the kept records are; `topics` is None where scikit-learn is not installed."""

    found: Diversity
    topics: list[Topic] | None
    coverage: Coverage


class _Run(NamedTuple):
    """What the run folder holds; None for what is not there yet."""

    recipe: Recipe
    seeds: list[SeedTask]
    funnel: Funnel | None
    bill: list[BillLine]
    spending: Spending | None
    summary: Summary | None
    varied: _Varied | None
    private: bool
    documents: str
    dataset: dict[str, Any] | None
    training: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    seconds: dict[str, float]


def write_report(folder: RunFolder) -> Path:
    """Write report.html of the run and return its path.

    Needs nothing but the recipe; whatever else is there is shown. Raises `MissingDependency` where
    there are charts to draw and plotly is not installed, and `FolderError` where a file of the run
    is not what it should be.
    """
    run = _gather(folder)
    commands = _commands(folder)
    page = Page(run.recipe.name, _lead(run))
    page.add(
        "overview",
        "Overview",
        tiles(
            run.funnel,
            None if run.recipe.teacher is None else run.recipe.generate.target,
            run.bill,
            run.training,
            run.evaluation,
            run.seconds,
        ),
    )
    _add_records(page, run, commands["generate"])
    _add_student(page, run, commands)
    _add_background(page, run, commands["dataset"])
    write_atomically(folder.report, page.html().encode("utf-8"))
    return folder.report


def _commands(folder: RunFolder) -> dict[str, str]:
    """The command that makes what is missing, by stage."""
    return {
        "generate": f"selfinstruct generate {folder.recipe_path}",
        "dataset": f"selfinstruct export {folder.path}",
        "train": f"selfinstruct train-student {folder.path}",
        "evaluate": f"selfinstruct evaluate {folder.path}",
    }


def _gather(folder: RunFolder) -> _Run:
    training = folder.read_json(folder.student / "training.json")
    evaluation = folder.read_json(folder.evaluation / "evaluation.json")
    seeds: list[SeedTask] = []
    counts, lines, went, summary, seconds = None, [], None, None, {}
    private, documents = False, ""
    varied: _Varied | None = None
    if folder.db_path.is_file():
        with Ledger.read(folder.db_path) as ledger:
            seeds, passages = ledger.seeds(), ledger.passages()
            private = any(one.private for one in seeds) or any(one.private for one in passages)
            documents = ledger.meta("documents") or ""
            counts, lines, went = funnel(ledger), bill(ledger), spending(ledger)
            summary = summarize(seeds, ledger.records(), passages)
            varied = _varied(seeds, [record.candidate for record in ledger.records(kept=True)])
            seconds = _worked(ledger)
    for stage, made in (("train", training), ("evaluate", evaluation)):
        if made and made.get("seconds"):
            seconds[stage] = float(made["seconds"])
    return _Run(
        recipe=folder.recipe(),
        seeds=seeds,
        funnel=counts,
        bill=lines,
        spending=went,
        summary=summary,
        varied=varied,
        private=private,
        documents=documents,
        dataset=folder.read_json(folder.dataset / "dataset.json"),
        training=training,
        evaluation=evaluation,
        seconds=seconds,
    )


def _varied(seeds: list[SeedTask], kept: list[Candidate]) -> _Varied:
    topics = topics_of([c.instruction for c in kept])[0] if can_find_topics() else None
    return _Varied(measure(kept), topics, coverage(seeds, kept))


def _worked(ledger: Ledger) -> dict[str, float]:
    """Seconds of work by stage. A session that was killed counts up to its last entry."""
    rows = ledger.db.execute(
        "SELECT s.stage, sum(max(0, coalesce(s.ended, (SELECT max(coalesce(a.ended, a.sent))"
        "   FROM attempts a WHERE a.sent >= s.started AND a.sent < coalesce((SELECT min(n.started)"
        "     FROM sessions n WHERE n.id > s.id), 9e15)), s.started)"
        " - s.started)) FROM sessions s GROUP BY 1 ORDER BY min(s.id)"
    )
    return {str(stage): float(seconds) for stage, seconds in rows if seconds}


def _lead(run: _Run) -> str:
    """The line under the title and the state of each stage."""
    teacher = run.recipe.teacher
    parts = []
    if teacher is not None:
        parts.append(f"Teacher <b>{text(teacher.model)}</b> ({text(teacher.kind)})")
    if run.recipe.student:
        parts.append(f"student <b>{text(run.recipe.student.base_name)}</b>")
    if seeds := len(run.seeds):
        what = "record" if teacher is None else "seed"
        parts.append(f"{count(seeds)} {what}{'' if seeds == 1 else 's'}")
    parts += [text(run.documents)] if run.documents else []
    written = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    chips = "".join(
        f"<li{' class=done' if state == 'done' else ''}>{text(name)}: {text(state)}</li>"
        for name, state in _stages(run).items()
    )
    return (
        f'<p class="lead">{_sentence(parts)} Written {written} by selfinstruct {__version__}.</p>'
        f'<ul class="stages" aria-label="Stages">{chips}</ul>'
    )


def _sentence(parts: list[str]) -> str:
    return f"{', '.join(parts)[:1].upper()}{', '.join(parts)[1:]}." if parts else ""


def _stages(run: _Run) -> dict[str, str]:
    """Each stage's state: "done", or how far it is."""
    target, kept = run.recipe.generate.target, run.funnel.kept if run.funnel else 0
    share = f"{percent(kept, target)} of the target" if kept else "not yet"
    state = {"Generation": "done" if kept >= target else share}
    if run.recipe.teacher is None:
        state = {}
    for name, made in (
        ("Dataset", run.dataset),
        ("Student", run.training),
        ("Evaluation", run.evaluation),
    ):
        wanted = name == "Dataset" or run.recipe.student is not None
        if made is not None or wanted:
            state[name] = "not yet" if made is None else "done"
    return state


def _add_records(page: Page, run: _Run, command: str) -> None:
    """What came in, what it cost, what it is like."""
    if run.recipe.teacher is None:
        page.add("money", "Money", money_section(run.bill, 0))
        return
    if run.funnel is None or run.summary is None:
        page.add("funnel", "Funnel", not_done("Generation is", command))
        return
    page.add("funnel", "Funnel", funnel_section(page, run.funnel))
    money = money_section(run.bill, run.funnel.kept)
    page.add("money", "Money", money + (spending_section(run.spending) if run.spending else ""))
    rouge = run.recipe.filters.rouge
    threshold = rouge.threshold if rouge.enabled and rouge.field == "instruction" else None
    page.add("variety", "Variety", variety_section(page, run.summary, threshold))
    if run.varied is not None and run.funnel.kept:
        instructions = {seed.id: seed.instruction for seed in run.seeds}
        page.add("diversity", "Diversity", diversity_section(*run.varied, instructions))
    page.add("kept", "Kept records", kept_section(run.summary))
    page.add("faults", "Faults found", _faults(run.recipe, run.funnel, run.summary))
    page.add("rejected", "Rejected candidates", rejected_section(run.summary, run.funnel.rejected))


def _faults(recipe: Recipe, counts: Funnel, summary: Summary) -> str:
    """What the rules that are on found, in kept and rejected records."""
    filters = recipe.filters
    actions = {**filters.rules.actions, **filters.correctness.actions}
    found = [
        Found(
            rule=rule,
            looks_for=looks_for,
            action=actions[rule],
            number=counts.rejected.get(rule, 0) + counts.flagged.get(rule, 0),
            examples=summary.faults.get(rule, []),
        )
        for rule, looks_for in REASONS.items()
        if actions[rule] != "off"
    ]
    return faults_section(found, counts.candidates)


def _add_student(page: Page, run: _Run, commands: Mapping[str, str]) -> None:
    """How the student was trained and what it learned."""
    if run.training is not None:
        page.add("training", "Training", training_section(page, run.training))
    elif run.recipe.student is not None:
        page.add("training", "Training", not_done("Training is", commands["train"]))
    if run.evaluation is not None:
        same = run.evaluation.get("same_weights_as_teacher")
        warning = f'<p class="warning">{text(SAME_WEIGHTS)}</p>' if same else ""
        page.add(
            "evaluation", "Before and after", warning, evaluation_section(page, run.evaluation)
        )
    elif run.recipe.student is not None:
        page.add("evaluation", "Before and after", not_done("Evaluation is", commands["evaluate"]))


def _add_background(page: Page, run: _Run, command: str) -> None:
    """Settings, origins, limits."""
    generated = run.recipe.teacher is not None
    missing = not_done("The dataset is", command) if run.dataset is None else ""
    page.add(
        "provenance",
        "Origins",
        missing,
        provenance_section(
            run.summary, run.dataset, run.training, run.evaluation, generated=generated
        ),
    )
    page.add(
        "settings",
        "Settings",
        settings_section(
            run.recipe.model_dump(mode="json", exclude_defaults=True),
            run.recipe.model_dump(mode="json"),
        ),
    )
    page.add(
        "limits",
        "Limits",
        limits_section(
            run.summary,
            run.evaluation,
            generated=generated,
            estimated=any(line.estimated for line in run.bill),
            private=run.private,
            unfinished=[
                f"{name.lower()} ({state})"
                for name, state in _stages(run).items()
                if state != "done"
            ],
        ),
    )
