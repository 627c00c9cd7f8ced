"""A job of `filters_drive.py`: what the rules find in the answers of a very small model.

SmolLM2-135M-Instruct answers Alpaca's instructions greedily, as it does when it loses the thread.
That takes minutes, so the answers are made once, into build/, and so is a page of what was found,
to be read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from pathlib import Path
from typing import Any

from filters_faults import rules_of_all_kinds
from harness import HERE
from texts import alpaca

from selfinstruct.core.ids import make_request
from selfinstruct.core.types import Message, Sampling
from selfinstruct.steps.rules.view import View
from selfinstruct.steps.teachers.local import LocalTeacher

Said = dict[str, object]
MODEL = "smollm2-135m-instruct"
MAX_TOKENS = 180
SLOTS = 8


def weak(given: argparse.Namespace) -> Said:
    """How many of `count` answers each rule finds a fault in."""
    path = HERE.parent / "build" / "weak.jsonl"
    path.parent.mkdir(exist_ok=True)
    asyncio.run(_answer_missing(path, given.count))
    rows = _read(path)[: given.count]
    views = [View(row["instruction"], row["input"], row["output"]) for row in rows]
    page = path.with_suffix(".txt")
    page.unlink(missing_ok=True)
    found = []
    for name, rule in rules_of_all_kinds().items():
        hits = [(at, said) for at, view in enumerate(views) if (said := rule(view))]
        found.append({"rule": name, "found": len(hits)})
        _page(page, name, [(views[at], said) for at, said in hits])
    cut = sum(not row["stopped"] for row in rows)
    counted = [row for row in found if row["found"]]
    return {"rows": len(rows), "cut_by_the_limit": cut, "rules": counted}


def _page(path: Path, rule: str, hits: list[tuple[View, str]]) -> None:
    """Add what a rule found to the page."""
    with path.open("a", encoding="utf-8") as file:
        for view, said in hits:
            file.write(f"{rule}: {said}\n  {view.task[:300]!r}\n  {view.output[-400:]!r}\n\n")


def _read(path: Path) -> list[dict[str, Any]]:
    """The answers that are there, in the order of the rows."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return sorted(map(json.loads, lines), key=lambda row: row["place"])


async def _answer_missing(path: Path, count: int) -> None:
    """Add the model's greedy answers to the first of the rows, drawn with a fixed seed.

    `stopped` says whether it stopped by itself. After a stop only what is missing is asked for.
    """
    known = {row["place"] for row in _read(path)}
    rows = random.Random(11).sample(alpaca().rows, 1000)
    missing = [place for place in range(count) if place not in known]
    slots = asyncio.Semaphore(SLOTS)
    teacher = LocalTeacher(id="weak", model=MODEL, concurrency=SLOTS, timeout_s=600)

    async def answer(place: int) -> None:
        row = rows[place]
        asked = f"{row['instruction']}\n{row['input']}".strip()[:1500]
        request = make_request(
            teacher="weak",
            model=MODEL,
            sampling=Sampling(max_tokens=MAX_TOKENS, temperature=0.0),
            messages=(Message(role="user", content=asked),),
            sample=0,
        )
        async with slots:
            done = await teacher(request)
        said = {"output": done.text, "stopped": done.finish == "stop", "place": place}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **said}) + "\n")

    if not missing:
        return
    try:
        await teacher.start()
        await asyncio.gather(*map(answer, missing))
    finally:
        await teacher.close()
