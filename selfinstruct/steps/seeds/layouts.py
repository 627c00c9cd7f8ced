"""From a row to examples: the layouts that instruction data comes in.

- fields: an instruction, an input and an output under one of their usual names (Alpaca, Dolly,
  prompt/completion, question/answer, a CSV header); a prompt and a completion may be lists of
  messages.
- self-instruct: an instruction with a list of ``instances`` (Self-Instruct's seed_tasks.jsonl).
- conversation: ``messages`` (role, content) or ShareGPT's ``conversations`` (from, value).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

from selfinstruct.steps.seeds.faults import fault, kind_of, quoted
from selfinstruct.steps.seeds.text import check_text, is_no_input, trim

Layout = Literal["fields", "self-instruct", "conversation"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

# The usual names of a field; where a record has several, the first listed counts.
INSTRUCTION = ("instruction", "prompt", "question", "query", "task")
INPUT = ("input", "context")
OUTPUT = ("output", "response", "completion", "answer", "target")
TURNS = ("messages", "conversations", "conversation")
TELLING = frozenset((*INSTRUCTION, *OUTPUT, *TURNS, "instances"))  # of what layout a record is
FIELD_NAMES = TELLING | {*INPUT, "id", "category", "is_classification"}

# Speakers as OpenAI's, ShareGPT's and similar dumps name them. "" is heard but not read.
SPEAKERS = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "system": "system", "developer": "system",
    "tool": "", "function": "", "function_call": "", "observation": "",
}  # fmt: skip


class Example(NamedTuple):
    """One example of a row. `id` is "" where the row gives none."""

    instruction: str
    input: str
    output: str
    category: str
    id: str


def layout_of(value: dict[str, Any], where: str) -> Layout:
    """The layout of a file whose first record is `value`. Raises `SeedError` if it is none."""
    complete = _named(value, INSTRUCTION) and _named(value, OUTPUT)
    if "instances" in value and not complete:
        return "self-instruct"
    if _named(value, TURNS) and not complete:
        return "conversation"
    if _named(value, INSTRUCTION) or "output" in value:
        return "fields"
    raise fault(
        where,
        f"no known layout, found the fields {quoted(list(value))}; known are instruction, input, "
        "output (also prompt/completion, question/answer, instruction/context/response), "
        f"instruction + instances, messages, conversations{_renamed(value)}",
    )


def _renamed(value: dict[str, Any]) -> str:
    """What to do where a field of an unknown name holds the turns of a conversation."""
    for name, found in value.items():
        first = found[0] if isinstance(found, list) and found else None
        if isinstance(first, dict) and not {"role", "from"}.isdisjoint(first):
            return f'; "{name}" holds turns: call it messages'
    return ""


def examples(value: dict[str, Any], layout: Layout, where: str) -> Iterator[Example]:
    """The examples that the record `value` holds, at least one.

    Raises `SeedError`, naming `where` and the field, for what is missing, empty or of a wrong type.
    """
    if layout == "self-instruct":
        yield from _instances(value, where)
    elif (talk := turns_of(value, layout, where)) is not None:
        field, turns = talk
        yield _conversation(value, turns, field, where)
    else:
        yield _fields(value, where)


def turns_of(
    value: dict[str, Any], layout: Layout, where: str
) -> tuple[str, list[tuple[str, str]]] | None:
    """The field and the turns of a record that is a conversation, else None. Raises `SeedError`."""
    if layout == "conversation":
        name = _named(value, TURNS) or "messages"
        return name, read_turns(value.get(name), name, where)
    asked, told = _named(value, INSTRUCTION), _named(value, OUTPUT)
    if layout != "fields" or asked != "prompt" or not isinstance(value.get(asked), list):
        return None
    turns = read_turns(value[asked], asked, where)
    if isinstance(value.get(told), list):
        turns += read_turns(value[told], told, where)
    else:
        turns.append(("assistant", _required(value, told or "completion", where)))
    return f"{asked} + {told}", turns


def _named(value: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of `names` that the record has, "" if none."""
    return next((name for name in names if name in value), "")


def _fields(value: dict[str, Any], where: str) -> Example:
    asked, told = _named(value, INSTRUCTION), _named(value, OUTPUT)
    return Example(
        _required(value, asked or "instruction", where).strip(),
        _input(value, _named(value, INPUT), where),
        _required(value, told or "output", where),
        _optional(value, "category", where),
        _id(value, where),
    )


def _instances(value: dict[str, Any], where: str) -> Iterator[Example]:
    instruction = _required(value, "instruction", where).strip()
    name, found = _id(value, where), value.get("instances")
    if not isinstance(found, list) or not found:
        said = "an empty list" if found == [] else kind_of(found)
        raise fault(where, f'field "instances" is {said}; it must be a list of input and output')
    category = _optional(value, "category", where)
    if not category and value.get("is_classification") is True:
        category = "classification"
    for number, instance in enumerate(found, 1):
        at = f"instances[{number}]"
        if not isinstance(instance, dict):
            raise fault(where, f'field "{at}" is {kind_of(instance)}; it must be an object')
        yield Example(
            instruction,
            _input(instance, "input", where, within=at),
            _required(instance, "output", where, within=at),
            category,
            f"{name}-{number}" if name and len(found) > 1 else name,
        )


def _conversation(
    value: dict[str, Any], turns: list[tuple[str, str]], field: str, where: str
) -> Example:
    """First user turn and the reply to it; system text becomes the input. Later turns are left."""
    system = "\n\n".join(text for who, text in turns if who == "system" and text.strip())
    asked = next((n for n, (who, _) in enumerate(turns) if who == "user"), None)
    if asked is None:
        raise fault(where, f'field "{field}" has no user turn')
    reply = next((text for who, text in turns[asked + 1 :] if who == "assistant"), None)
    if reply is None:
        raise fault(where, f'field "{field}" has no assistant turn after the first user turn')
    instruction = turns[asked][1]
    for text, who in ((instruction, "user"), (reply, "assistant")):
        if not text.strip():
            raise fault(where, f'field "{field}": the first {who} turn is empty')
    category = _optional(value, "category", where)
    return Example(instruction.strip(), trim(system), trim(reply), category, _id(value, where))


def check_turns(turns: list[tuple[str, str]], field: str, where: str) -> list[dict[str, str]]:
    """The turns as messages to learn from. Raises `SeedError` for one by a tool, or empty."""
    for number, (speaker, text) in enumerate(turns, 1):
        if not speaker:
            raise fault(
                where,
                f'field "{field}[{number}]" is by a tool; only turns of system, user and '
                "assistant are learned from",
            )
        if not text.strip():
            raise fault(where, f'field "{field}[{number}]" is empty')
    return [{"role": speaker, "content": text} for speaker, text in turns]


def from_the_question(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """A conversation without what the assistant says before anybody asked it, such as a greeting.

    It answers nothing, and most chat templates refuse it; FastChat's trainer leaves it out too.
    """
    first = next((at for at, turn in enumerate(messages) if turn["role"] == "user"), len(messages))
    before = [turn for turn in messages[:first] if turn["role"] != "assistant"]
    return [*before, *messages[first:]]


def read_turns(found: Any, field: str, where: str) -> list[tuple[str, str]]:
    """(speaker, text) of each turn; speakers are "user", "assistant", "system" or ""."""
    if not isinstance(found, list) or not found:
        said = "an empty list" if found == [] else kind_of(found)
        raise fault(where, f'field "{field}" is {said}; it must be a list of turns')
    turns = []
    for number, turn in enumerate(found, 1):
        at = f"{field}[{number}]"
        if not isinstance(turn, dict):
            raise fault(where, f'field "{at}" is {kind_of(turn)}; it must be an object')
        who = turn.get("role", turn.get("from"))
        speaker = SPEAKERS.get(who) if isinstance(who, str) else None
        if speaker is None:
            raise fault(
                where,
                f'field "{at}" has the speaker {who!r}; known are {", ".join(SPEAKERS)}',
            )
        content = turn["content"] if "content" in turn else turn.get("value")
        turns.append((speaker, _content(content, at, where) if speaker else ""))
    return turns


def _content(content: Any, at: str, where: str) -> str:
    """A turn's text: a string, or a list of parts that are all text."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) != len(parts):
            raise fault(where, f'field "{at}" holds more than text; images and files are not read')
        content = "\n".join(texts)
    if not isinstance(content, str):
        raise fault(where, f'field "{at}" holds {kind_of(content)}; a turn must be text')
    return check_text(content, at, where)


def _required(value: dict[str, Any], name: str, where: str, *, within: str = "") -> str:
    label = f"{within}.{name}" if within else name
    if name not in value:
        names = quoted([str(key) for key in value])
        raise fault(where, f'field "{label}" is missing; the record has {names}')
    found = value[name]
    if not isinstance(found, str):
        raise fault(where, f'field "{label}" is {kind_of(found)}; it must be text')
    if not found.strip():
        raise fault(where, f'field "{label}" is empty; fill it in or remove the record')
    return trim(check_text(found, label, where))


def _optional(value: dict[str, Any], name: str, where: str, *, within: str = "") -> str:
    """The field's text; "" where it is not there or null."""
    found = value.get(name)
    label = f"{within}.{name}" if within else name
    if found is None:
        return ""
    if not isinstance(found, str):
        raise fault(where, f'field "{label}" is {kind_of(found)}; it must be text')
    return trim(check_text(found, label, where))


def _input(value: dict[str, Any], name: str, where: str, *, within: str = "") -> str:
    """As `_optional`, and "" where the text only spells that there is no input."""
    found = _optional(value, name, where, within=within)
    return "" if is_no_input(found) else found


def _id(value: dict[str, Any], where: str) -> str:
    found = value.get("id")
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return _optional(value, "id", where).strip()
