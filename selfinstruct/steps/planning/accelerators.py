"""What a GPU can do at most, and what it draws, by the name its driver gives."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

_TABLE = Path(__file__).parent.parent / "data" / "gpus.yaml"


class Accelerator(msgspec.Struct, frozen=True):
    """A GPU's peak in floating-point operations per second, and its power limit in watts."""

    flops: float
    watts: float


@cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = yaml.safe_load(_TABLE.read_text("utf-8"))["entries"]
    return entries


def known_gpu(name: str) -> Accelerator | None:
    """The GPU called `name`, such as "NVIDIA H100 80GB HBM3"; None where the table has none."""
    words = set(re.findall(r"[a-z]*\d*[a-z]*\d*[a-z]*", name.lower()))
    for entry in _entries():
        if words.issuperset(str(word) for word in entry["words"]):
            return Accelerator(flops=entry["tflops"] * 1e12, watts=float(entry["watts"]))
    return None
