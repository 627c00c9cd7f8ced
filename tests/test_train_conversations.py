"""Conversations: every answer is learned, nothing else is, in every family's own form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training.format import IGNORED, Example, StudentFormat
from selfinstruct.steps.training.lessons import prepare
from tests.families import FAMILIES, family_tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name the opposite of cold"},
    {"role": "assistant", "content": "Warm."},
    {"role": "user", "content": "And the plural of goose?"},
    {"role": "assistant", "content": "Geese."},
]
CONVERSATION = {"id": "c", "messages": MESSAGES}
# Templates that write an earlier turn differently once it is past, and encoders.
SPLIT = ("qwen-3", "flan-t5")
WHOLE = [name for name in FAMILIES if name not in SPLIT]


def form(name: str, system: str = "") -> StudentFormat:
    return StudentFormat(family_tokenizer(name), name, system, encoder=name == "flan-t5")


def learned(format_: StudentFormat, example: Example) -> list[str]:
    """The stretches of text with loss."""
    found = []
    pairs = zip(example.answer, example.labels, strict=True)
    for kept, group in itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        if kept:
            found.append(format_.tokenizer.decode([token for token, _ in group]))
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_every_answer_of_a_conversation_is_learned(name: str) -> None:
    """One example holds the conversation; loss is on both answers and the tokens that end them."""
    chosen = form(name)
    (example,) = chosen.tokenize([CONVERSATION])
    stop = chosen.rendering.stop_text
    texts = [text.strip() for text in learned(chosen, example)]
    assert [text.removesuffix(stop).strip() for text in texts] == ["Warm.", "Geese."]
    assert all(text.endswith(stop) for text in texts)
    assert example.learned == sum(label != IGNORED for label in example.labels)


@pytest.mark.parametrize("name", [name for name in WHOLE if FAMILIES[name].template])
def test_a_conversation_is_what_the_template_writes(name: str) -> None:
    """The tokens are those of the template's own rendering, up to the last turn's end."""
    chosen = form(name)
    messages = MESSAGES[1:]
    (example,) = chosen.tokenize([{"id": "c", "messages": messages}])
    tokenizer = chosen.tokenizer
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    found = example.prompt + example.answer
    assert whole[: len(found)] == found
    assert tokenizer.decode(whole[len(found) :]).strip() == ""


@pytest.mark.parametrize("name", SPLIT)
def test_what_cannot_stay_whole_becomes_an_example_an_answer(name: str) -> None:
    """Where earlier turns are rewritten, or an encoder reads them, each answer gets the prompt that
    it would have at inference."""
    chosen = form(name)
    examples = chosen.tokenize([CONVERSATION])
    assert [example.id for example in examples] == ["c#1", "c#2"]
    assert all(not example.hidden for example in examples)
    last = chosen.tokenizer.decode(examples[1].prompt)
    assert "Warm." in last
    assert "Geese." not in last
    assert [learned(chosen, e)[0].replace("<think>\n\n</think>", "").strip() for e in examples] == [
        f"Warm.{chosen.rendering.stop_text}",
        f"Geese.{chosen.rendering.stop_text}",
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_system_message_reaches_every_family(name: str) -> None:
    """Its text is in the prompt, also where the template knows no such message; a conversation's
    own goes before the recipe's."""
    (first, *_) = form(name, system="Speak plainly.").tokenize([CONVERSATION])
    text = form(name).tokenizer.decode(first.prompt)
    assert "Be brief." in text
    assert "plainly" not in text
    (first, *_) = form(name, system="Speak plainly.").tokenize(
        [{"id": "d", "messages": MESSAGES[1:]}]
    )
    assert "Speak plainly." in form(name).tokenizer.decode(first.prompt)


@pytest.mark.parametrize("name", ["llama-3", "gemma-2", "gpt-j"])
def test_a_conversation_of_one_answer_is_a_record(name: str) -> None:
    """A conversation of one question and one answer gives the tokens of the record it is."""
    chosen = form(name)
    row = {"id": "r", "instruction": "Name the opposite", "input": "", "output": "Warm."}
    turns = [
        {"role": "user", "content": row["instruction"]},
        {"role": "assistant", "content": row["output"]},
    ]
    assert chosen.tokenize([{"id": "r", "messages": turns}]) == chosen.tokenize([row])


def test_later_turns_without_a_template() -> None:
    """Where there is no chat template, later turns follow Alpaca's prompt as in FastChat."""
    chosen = form("pythia")
    (example,) = chosen.tokenize([{"id": "c", "messages": MESSAGES[1:]}])
    text = chosen.tokenizer.decode(example.prompt + example.answer)
    assert text.endswith(
        "### Instruction:\nName the opposite of cold\n\n### Response:Warm.<|endoftext|>\n\n"
        "### Instruction:\nAnd the plural of goose?\n\n### Response:Geese.<|endoftext|>"
    )


def test_what_follows_the_last_answer_is_left() -> None:
    """A question without an answer has nothing to learn."""
    chosen = form("smollm2")
    more = [*MESSAGES, {"role": "user", "content": "And of mouse?"}]
    assert chosen.tokenize([{"id": "c", "messages": more}]) == chosen.tokenize([CONVERSATION])


def test_a_conversation_that_the_template_refuses_is_left_out() -> None:
    """It is named with the template's reason; the others, and single tasks, are learned."""
    task = {"id": "t", "instruction": "Say hi", "input": "", "output": "Hi."}
    twice = {"id": "u", "messages": [MESSAGES[1], *MESSAGES[1:]]}
    rows, notes = form("llama-2").taken([CONVERSATION, twice, task])
    assert [row["id"] for row in rows] == [CONVERSATION["id"], "t"]
    assert notes[0].startswith("1 conversations were left out (u): ")
    assert "must alternate" in notes[0]
    assert form("smollm2").taken([twice])[1] == []
    with pytest.raises(UserError, match=r"left out \(u\)"):
        form("llama-2").taken([twice])


def test_text_that_is_read_as_tokens_is_told() -> None:
    """Marks left over from another template end a turn where they are the base's own too."""
    rows = [
        {"id": "a", "instruction": "Say hi", "input": "", "output": "Hi.<|im_end|>"},
        {"id": "b", "messages": [*MESSAGES[:2], {"role": "assistant", "content": "<|im_start|>"}]},
        {"id": "c", "instruction": "Say hi", "input": "", "output": "Hi."},
    ]

    def told(name: str) -> list[str]:
        return [note for note in prepare(form(name), rows, 256, 512).notes if "holds" in note]

    assert told("smollm2") == [
        "the text of 2 records holds <|im_end|>, <|im_start|>, which smollm2 reads as tokens of "
        "its own (a, b); take it out, unless it is meant"
    ]
    assert told("llama-3") == []


TEXT = st.text(alphabet="ab .\n", min_size=1, max_size=6).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), limit=st.integers(1, 120))
def test_masks_are_whole_whatever_is_said(turns: list[tuple[str, str]], limit: int) -> None:
    """Labels are the tokens or ignored, begin with loss, and cutting shortens them from the end."""
    chosen = FORM
    messages: list[dict[str, Any]] = []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    examples = chosen.tokenize([{"id": "c", "messages": messages}])
    for example in examples:
        assert example.labels[0] != IGNORED
        assert all(
            label in (IGNORED, token)
            for label, token in zip(example.labels, example.answer, strict=True)
        )
    assert sum(e.labels.count(chosen.stop_id) for e in examples) == len(turns)
    for short in chosen.examples([{"id": "c", "messages": messages}], limit).kept:
        full = next(e for e in examples if e.id == short.id)
        assert short.length <= limit
        assert short.labels == full.labels[: len(short.labels)]
        assert short.learned > 0


FORM = form("smollm2")
