"""Runs against the fake server, for the tests of several modules."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import selfinstruct
from selfinstruct.core.recipe import Recipe
from selfinstruct.engine.accounts import Funnel

WORDS = [
    "river",
    "stone",
    "candle",
    "winter",
    "garden",
    "market",
    "engine",
    "violin",
    "harbour",
    "ladder",
    "meadow",
    "copper",
    "pepper",
    "thunder",
    "blanket",
    "lantern",
    "orchard",
    "saddle",
    "compass",
    "feather",
]


def write_seeds(folder: Path, count: int = 12) -> Path:
    """A seed file with `count` different tasks."""
    path = folder / "seeds.jsonl"
    lines = [
        {
            "id": f"s{n}",
            "instruction": f"Describe how a {word} changes the {WORDS[-1 - n]} nearby",
            "input": f"The {word} stands alone." if n % 2 else "",
            "output": f"It makes everything around the {word} look smaller than before.",
        }
        for n, word in enumerate(WORDS[:count])
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def recipe(folder: Path, url: str, **generate: Any) -> dict[str, Any]:
    """A recipe for a run against a server at `url`."""
    return {
        "name": "test",
        "seeds": [str(write_seeds(folder))],
        "teacher": {
            "kind": "compatible",
            "base_url": f"{url}/v1",
            "model": "fake-1",
            "concurrency": generate.pop("concurrency", 8),
            "max_tokens": 800,
            "timeout_s": generate.pop("timeout_s", 20),
        },
        "generate": {
            "target": 40,
            "window": 16,
            "strategies": [
                {"kind": "alpaca", "tasks_per_request": 6, "machine_examples": 1},
                {"kind": "self-instruct"},
                {"kind": "json"},
            ],
        }
        | generate,
        "prices": {"fake-1": {"input": 1, "output": 2}},
    }


def make(folder: Path, url: str, output: str = "run", **generate: Any) -> selfinstruct.Run:
    """A run of that recipe in `folder`/`output`."""
    return selfinstruct.Run.from_recipe(recipe(folder, url, **generate), output=folder / output)


def digest(run: selfinstruct.Run) -> str:
    """The hash of everything the dataset's Parquet files hold, byte for byte."""
    run.write_dataset(force=True)
    whole = hashlib.sha256()
    for path in sorted(run.folder.dataset.rglob("*.parquet")):
        whole.update(path.relative_to(run.folder.dataset).as_posix().encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()


def adds_up(counts: Funnel) -> bool:
    """Whether every candidate is accounted for."""
    return counts.candidates == counts.kept + sum(counts.rejected.values()) + counts.beyond_target


def as_recipe(folder: Path, url: str, **generate: Any) -> Recipe:
    """That recipe, checked."""
    return Recipe.model_validate(recipe(folder, url, **generate))
