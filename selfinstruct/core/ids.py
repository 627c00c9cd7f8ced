"""Content hashes that name requests, candidates and settings."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import orjson

from selfinstruct.core.types import Message, Request, Sampling

# Change it when the payload of the hash changes: ids of earlier runs then no longer match.
SCHEME = 1


def fingerprint(value: Any) -> str:
    """The hex SHA-256 of `value` as canonical JSON (sorted keys); for settings and text."""
    plain = msgspec.to_builtins(value)
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()


def make_request(
    *,
    teacher: str,
    model: str,
    sampling: Sampling,
    messages: tuple[Message, ...] = (),
    prompt: str = "",
    prompt_version: str = "",
    sample: int,
    slot: int = 0,
    step: int = 0,
    branch: int = 0,
    strategy: str = "",
    parents: tuple[str, ...] = (),
) -> Request:
    """A `Request` with its id filled in.

    The id covers what the provider sees (teacher, model, sampling, messages or prompt), the prompt
    file's version and the sample index, and nothing of the bookkeeping: where a run puts the call
    does not change what it is.
    """
    if bool(messages) == bool(prompt):
        raise ValueError("a request has either messages or a raw prompt")
    body = [SCHEME, teacher, model, sampling, messages, prompt, prompt_version, sample]
    return Request(
        id=fingerprint(body)[:32],
        teacher=teacher,
        model=model,
        sampling=sampling,
        messages=messages,
        prompt=prompt,
        sample=sample,
        slot=slot,
        step=step,
        branch=branch,
        strategy=strategy,
        prompt_version=prompt_version,
        parents=parents,
    )


def candidate_id(request_id: str, index: int) -> str:
    """The id of the `index`-th candidate of a request; also the id of the record it becomes."""
    return f"{request_id[:16]}-{index}"
