"""From a row of any layout to what the filters judge: instruction, input, output.

The layouts are those of `seeds.layouts`. There the first fault ends the reading, as people wrote
the file; here it is the row's alone, as rows come by the million.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from selfinstruct.core.errors import UserError
from selfinstruct.steps.rows import text_files
from selfinstruct.steps.rows.chunks import Fault, Found
from selfinstruct.steps.seeds.faults import kind_of, quoted
from selfinstruct.steps.seeds.layouts import INPUT, INSTRUCTION, OUTPUT, SPEAKERS, TURNS
from selfinstruct.steps.seeds.text import is_no_input, trim

NOT_A_RECORD, UNKNOWN_LAYOUT = "not_a_record", "unknown_layout"
MISSING_FIELD, WRONG_TYPE = "missing_field", "wrong_type"
REASONS = {
    **text_files.REASONS,
    NOT_A_RECORD: "the row is no object with fields",
    UNKNOWN_LAYOUT: "no field of the row is known as an instruction or a conversation",
    MISSING_FIELD: "the row has no field, turn or instance that a task needs",
    WRONG_TYPE: "a field of the row holds what is no text",
}
"""Every reason a row can be rejected for before a filter has seen it."""

PARTS = ("instruction", "input", "output")


class Task(NamedTuple):
    """What is judged of a row."""

    instruction: str
    input: str
    output: str


class Columns:
    """Which fields of a row are the instruction, the input and the output.

    Args:
        named: the user's names by part, such as ``{"output": "chosen"}``; the usual names
            otherwise. Case does not count.

    Raises `UserError` for an unknown part.
    """

    def __init__(self, named: Mapping[str, str] | None = None) -> None:
        named = named or {}
        for part in named:
            if part not in PARTS:
                raise UserError(f"columns: {part!r} is no part of a task; {', '.join(PARTS)} are")
        self._named = {part: name.lower() for part, name in named.items()}

        def names(part: str, usual: tuple[str, ...]) -> tuple[str, ...]:
            return (self._named[part],) if part in self._named else usual

        self._instruction = names("instruction", INSTRUCTION)
        self._input = names("input", INPUT)
        self._output = names("output", OUTPUT)
        self._turns = () if "instruction" in named else TURNS
        self.judged = frozenset(
            (*self._instruction, *self._input, *self._output, *self._turns, "instances")
        )
        """The names of all columns that a row may be judged by, in lower case."""

    def task(self, found: Found) -> Task | Fault:
        """The task in a row as found, or why there is none."""
        value = found.value
        if found.fault is not None:
            return found.fault
        if not isinstance(value, dict):
            return Fault(NOT_A_RECORD, f"the row is {kind_of(value)}")
        task = self._task(value)
        if isinstance(task, Fault) and task.reason == UNKNOWN_LAYOUT:
            lower = {str(name).lower(): part for name, part in value.items()}
            if lower.keys() != value.keys():
                return self._task(lower)
        return task

    def _task(self, value: dict[str, Any]) -> Task | Fault:
        asked = _first(value, self._instruction)
        told = _first(value, self._output)
        if "instances" in value and not (asked and told):
            return self._instance(value, asked)
        turns = _first(value, self._turns)
        if turns and not (asked and told):
            return _conversation(value[turns], turns)
        if asked == "prompt" and isinstance(value[asked], list):
            reply = value.get(told) if told else None
            if isinstance(reply, str):
                reply = [{"role": "assistant", "content": reply}]
            return _conversation([*value[asked], *(reply or ())], "prompt")
        if not asked:
            return Fault(
                UNKNOWN_LAYOUT, f"the row has the fields {quoted([str(n) for n in value])}"
            )
        if not told:
            names = quoted([str(name) for name in value])
            return Fault(MISSING_FIELD, f'no "{self._output[0]}"; the row has {names}')
        return _checked(value, asked, _first(value, self._input), told)

    def _instance(self, value: dict[str, Any], asked: str) -> Task | Fault:
        """Self-Instruct's layout; a row of several instances is judged by the first."""
        found = value["instances"]
        if not asked:
            return Fault(MISSING_FIELD, 'there are "instances" but no "instruction"')
        if not isinstance(found, list) or not found or not isinstance(found[0], dict):
            said = "an empty list" if found == [] else kind_of(found)
            return Fault(WRONG_TYPE, f'field "instances" is {said}')
        first = {asked: value[asked], **found[0]}
        told = _first(first, self._output)
        if not told:
            return Fault(MISSING_FIELD, 'field "instances[1]" has no "output"')
        return _checked(first, asked, _first(first, self._input), told)


def _first(value: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in value), "")


def _checked(value: Mapping[str, Any], asked: str, given: str, told: str) -> Task | Fault:
    texts = []
    for name in (asked, given, told):
        text = _text(value.get(name)) if name else ""
        if text is None:
            return Fault(WRONG_TYPE, f'field "{name}" is {kind_of(value[name])}')
        texts.append(text)
    instruction, context, output = texts
    return Task(instruction.strip(), "" if is_no_input(context) else trim(context), trim(output))


def _text(value: Any) -> str | None:
    """A cell as text; None where it is none. A number is the answer in many a dataset."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN is how pandas spells a missing cell
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else None


def _conversation(turns: Any, field: str) -> Task | Fault:
    """First user turn and the reply to it; system text is the input."""
    if not isinstance(turns, list):
        return Fault(WRONG_TYPE, f'field "{field}" is {kind_of(turns)}; it must be a list of turns')
    asked, told, system = None, None, []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            return Fault(WRONG_TYPE, f'field "{field}[{number}]" is {kind_of(turn)}')
        who = turn.get("role", turn.get("from"))
        speaker = SPEAKERS.get(who, "") if isinstance(who, str) else ""
        if not speaker:
            continue
        text = _content(turn["content"] if "content" in turn else turn.get("value"))
        if text is None:
            return Fault(WRONG_TYPE, f'field "{field}[{number}]" holds more than text')
        if speaker == "system":
            system.append(text)
        elif speaker == "user" and asked is None:
            asked = text
        elif speaker == "assistant" and asked is not None:
            told = text
            break
    if asked is None or told is None:
        return Fault(MISSING_FIELD, f'field "{field}" has no user turn with a reply after it')
    return Task(
        asked.strip(), trim("\n\n".join(part for part in system if part.strip())), trim(told)
    )


def _content(content: Any) -> str | None:
    """A turn's text: a string, or a list of parts that are all text."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if len(texts) == len(parts) else None
    return _text(content)
