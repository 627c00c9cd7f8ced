"""Request ids: the hash of what the provider sees."""

from __future__ import annotations

from typing import Any

import pytest

from selfinstruct.core.ids import candidate_id, fingerprint, make_request
from selfinstruct.core.types import Message, Sampling


def request(**changes: Any):
    """A request with some arguments changed."""
    arguments: dict[str, Any] = {
        "teacher": "compatible",
        "model": "m",
        "sampling": Sampling(max_tokens=10),
        "messages": (Message("user", "hello"),),
        "sample": 0,
    }
    return make_request(**(arguments | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "openai"},
        {"model": "n"},
        {"sampling": Sampling(max_tokens=11)},
        {"sampling": Sampling(max_tokens=10, schema={"type": "object"})},
        {"messages": (Message("user", "hello!"),)},
        {"messages": (Message("system", "hello"),)},
        {"sample": 1},
        {"prompt_version": "x@2"},
    ],
)
def test_what_the_provider_sees_changes_the_id(change: dict[str, Any]) -> None:
    """Teacher, model, sampling, messages, prompt version and sample index are all in the id."""
    assert request(**change).id != request().id


def test_bookkeeping_does_not_change_the_id() -> None:
    """Where in the run a call belongs is no part of what it is."""
    placed = request(slot=7, step=1, branch=3, strategy="alpaca", parents=("a",))
    assert placed.id == request().id


def test_a_request_has_messages_or_a_prompt() -> None:
    """Both or neither is a fault of the caller's."""
    with pytest.raises(ValueError, match="either"):
        request(prompt="raw")
    with pytest.raises(ValueError, match="either"):
        request(messages=())


def test_fingerprints_do_not_depend_on_key_order() -> None:
    """Equal settings have equal fingerprints."""
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert candidate_id("0" * 32, 3) == "0" * 16 + "-3"
