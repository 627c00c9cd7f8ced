"""What every peer's driver is given and asks for: the same prompts, of the length of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

# cl100k_base is the one tokenizer whose table comes with a package (litellm's), for the peers that
# count tokens themselves.
MODEL = "gpt-3.5-turbo"
_RULES = (
    "You are asked to come up with a set of diverse task instructions. They will be given to a "
    "language model, to see how well it completes them. Use a different verb for each instruction, "
    "vary the wording and the kind of task, and write each in one or two sentences. "
)
RULES = _RULES * 9  # 2.7 kB, as our own prompt with its examples


def prompt(n: int) -> str:
    """The `n`-th prompt; no two are the same."""
    return f"{RULES}This is list number {n}."


def arguments() -> argparse.Namespace:
    """The command line of a driver."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="OpenAI's base URL, with /v1")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    return parser.parse_args()
