"""A child process of `filters.py`: every rule and check over Alpaca's rows, each by itself.

    python benchmarks/filters_faults.py --count 52002 --page build/faults.html

Unlike in a run, a row may show several faults, and no filter has gone before. The page shows ten
examples of each rule; it holds rows of the data and is not for publishing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from texts import alpaca, data_folder

from selfinstruct.core.sections.filters import CorrectnessConfig, RulesConfig
from selfinstruct.core.types import Candidate, Record, Verdict
from selfinstruct.steps.charts.faults import EXAMPLES, Found, faults_section
from selfinstruct.steps.charts.page import Page
from selfinstruct.steps.correctness.arithmetic import sums
from selfinstruct.steps.correctness.asked import asked_value
from selfinstruct.steps.filters.rules import REASONS, all_checks, all_rules
from selfinstruct.steps.rules.view import Rule, View

# What people wrote, where rules should find next to nothing.
BY_PEOPLE = (
    "dolly_3k.jsonl",
    "seed_tasks.jsonl",
    "user_oriented_instructions.jsonl",
    "gsm8k_1k.jsonl",
)
NOT_RUN = ("failing_python",)  # it starts a process for each program


def main() -> None:
    """Run the rules, write the page where one is asked for, print the counts as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    texts = alpaca(given.count)
    defaults = RulesConfig().actions | CorrectnessConfig().actions
    rules = rules_of_all_kinds()
    begin = time.process_time()
    views = [View(row["instruction"], row["input"], row["output"]) for row in texts.rows]
    for view in views:
        _ = view.folded  # shared by the rules that compare words
    folding = time.process_time() - begin
    rows, found, any_fault = [], [], set[int]()
    for name, rule in rules.items():
        begin = time.process_time()
        hits = [(n, detail) for n, view in enumerate(views) if (detail := rule(view))]
        cpu = time.process_time() - begin
        any_fault.update(n for n, _ in hits)
        rows.append({"rule": name, "action": defaults[name], "found": len(hits), "cpu_s": cpu})
        step = max(1, len(hits) // EXAMPLES)
        examples = [_record(n, texts.rows[n], detail) for n, detail in hits[::step][:EXAMPLES]]
        found.append(Found(name, REASONS[name], defaults[name], len(hits), examples))
    if given.page is not None:
        page = Page("Faults in Stanford Alpaca's rows", "")
        page.add("faults", "Faults found", faults_section(found, len(views)))
        given.page.parent.mkdir(parents=True, exist_ok=True)
        given.page.write_text(page.html(), "utf-8")
    total = folding + sum(float(str(row["cpu_s"])) for row in rows)
    said: dict[str, Any] = {
        "rows": len(views),
        "real": texts.real,
        "cpu_s": total,
        "folding_cpu_s": folding,
        "with_a_fault": len(any_fault),
        "results_asked": sum(asked_value(view) is not None for view in views),
        "results_wrong": sum(
            asked_value(view) is not None and bool(rules["wrong_arithmetic"](view))
            for view in views
        ),
        "by_people": _by_people(rules),
        "rules": rows,
    }
    print(json.dumps(said))


def rules_of_all_kinds() -> dict[str, Rule]:
    """Every rule and check but those of `NOT_RUN`, by name."""
    on = dict.fromkeys(REASONS, "flag") | dict.fromkeys(NOT_RUN, "off")
    rules = {name: on[name] for name in RulesConfig().actions}
    checks = {name: on[name] for name in CorrectnessConfig().actions}
    return all_rules(RulesConfig.model_validate(rules)) | all_checks(
        CorrectnessConfig.model_validate(checks)
    )


def _by_people(rules: dict[str, Rule]) -> dict[str, dict[str, int]]:
    """What the rules find in texts that people wrote, by file."""
    folder = data_folder()
    found: dict[str, dict[str, int]] = {}
    for name in BY_PEOPLE:
        if folder is None or not (folder / name).is_file():
            continue
        views = [view for line in (folder / name).open("rb") for view in _tasks(json.loads(line))]
        counts = {rule: sum(bool(look(view)) for view in views) for rule, look in rules.items()}
        whole = {"rows": len(views), "sums": sum(len(list(sums(v.output))) for v in views)}
        found[name] = whole | {rule: number for rule, number in counts.items() if number}
    return found


def _tasks(row: dict[str, Any]) -> list[View]:
    """A row's tasks: those of its instances, as in Self-Instruct's files, or itself."""
    asked = str(row.get("instruction") or row.get("question") or "")
    return [
        View(asked, str(one.get("input") or ""), str(one.get("output") or one.get("answer") or ""))
        for one in row.get("instances") or [row]
    ]


def _record(number: int, row: dict[str, str], detail: str) -> Record:
    candidate = Candidate(id=f"row-{number}", slot=number, index=0, strategy="", **row)
    return Record(candidate=candidate, verdict=Verdict(candidate_id=candidate.id, detail=detail))


if __name__ == "__main__":
    main()
