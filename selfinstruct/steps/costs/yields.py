"""What is assumed of a teacher before anything was measured, as dated data (`data/yields.yaml`)."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

_FILE = Path(__file__).parents[1] / "data" / "yields.yaml"

Triple = tuple[float, float, float]
"""For the low, the expected and the high estimate of cost."""
TeacherClass = Literal["small", "hosted", "own"]


class Yield(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a strategy brings: `candidates` in a reply (None: all it asks for), `share` kept."""

    share: Triple
    candidates: int | None = None


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast one call is while as many run as the recipe allows."""

    first_token_s: Triple
    tokens_per_s: Triple


class ClassOfTeacher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Assumptions for teachers of one kind, and where they are from."""

    source: str
    length_factor: Triple
    strategies: dict[str, Yield]
    speed: Speed | None = None
    described: str = msgspec.field(name="for", default="")


class Assumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All assumptions; `data/yields.yaml` says what each is."""

    checked: date
    token_factor: Triple
    thinking: Triple
    fall: Triple
    pool: int
    user_header: str
    task: int
    classes: dict[TeacherClass, ClassOfTeacher]


@cache
def assumptions() -> Assumptions:
    """The shipped assumptions."""
    import yaml

    return msgspec.convert(yaml.safe_load(_FILE.read_text("utf-8")), Assumptions)
