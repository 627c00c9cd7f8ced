"""Records as token ids: the prompt a student sees, and the answer it learns.

A tokenizer with a chat template gets its own conversation format. One without gets Alpaca's
training prompt (Taori et al. 2023, train.py), whose text is data: `ALPACA_PROMPT`. In both, the
answer ends with the token that ends a turn, and that token carries loss like any other: a student
that never sees it never stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.core.types import Message
from selfinstruct.steps.prompts import Prompt, load_prompt

ALPACA_PROMPT = "prompts/alpaca_student.txt"
WITHOUT_INPUT = "\n=== without input ===\n"
_PROBE = "xyzzy"


class Example(msgspec.Struct, frozen=True):
    """One record as token ids.

    Loss is on `answer` alone, which ends with the token that ends a turn, unless it was cut.
    """

    id: str
    prompt: list[int]
    answer: list[int]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.answer)


class Examples(msgspec.Struct, frozen=True):
    """The examples that fit, the ids of those cut short, and of those left out as all prompt."""

    kept: list[Example]
    truncated: list[str]
    fully_masked: list[str]


class StudentFormat:
    """How prompts are written for one tokenizer.

    Args:
        tokenizer: of the base; gets a pad token if it has none.
        base: the base's name, for messages.
        system: first message of every conversation, where not empty.

    Raises `UserError` where the tokenizer has no token to end an answer with, or its chat template
    refuses the conversation; `RecipeError` for a broken prompt file.
    """

    def __init__(self, tokenizer: Any, base: str, system: str = "") -> None:
        self.tokenizer = tokenizer
        self.base = base
        self.system = system
        self.kind: Literal["chat", "alpaca"] = "chat" if tokenizer.chat_template else "alpaca"
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"student.base: {base}: its tokenizer names no end-of-sequence token, so a student "
                "could not learn to stop; set eos_token in its tokenizer_config.json"
            )
        self.stop_id = self._turn_end()
        if tokenizer.pad_token_id is None:
            # Labels are built here and padding has its own mask, so sharing a token hides nothing.
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.stop_id)
        self._alpaca = None if self.kind == "chat" else alpaca_prompts()
        self._bos = self._added_bos()

    @property
    def stop_ids(self) -> list[int]:
        """Every token that ends an answer, the one trained on first."""
        return list(dict.fromkeys([self.stop_id, int(self.tokenizer.eos_token_id)]))

    @property
    def tag(self) -> str:
        """What the format depends on besides the tokenizer; goes into fingerprints."""
        prompts = [prompt.tag for prompt in self._alpaca or ()]
        return " ".join([self.kind, *prompts, self.system])

    def prompt(self, row: Mapping[str, Any]) -> str:
        """The text before the answer, for a row with `instruction` and `input`."""
        if self._alpaca is not None:
            chosen = self._alpaca[0] if row["input"] else self._alpaca[1]
            text = chosen.render(instruction=row["instruction"], input=row["input"])[0].content
            return f"{self.system}\n\n{text}" if self.system else text
        return self._chat([*self._opening(), Message("user", asked(row))], open_turn=True)

    def prompt_ids(self, rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """The prompts of `rows` as token ids."""
        if not rows:
            return []
        return [self._bos + ids for ids in self._ids([self.prompt(row) for row in rows])]

    def examples(self, rows: Sequence[Mapping[str, Any]], max_length: int) -> Examples:
        """`rows` as examples of at most `max_length` tokens; none is lost without being named."""
        prompts = [self.prompt(row) for row in rows]
        answers = [self._answer(row, text) for row, text in zip(rows, prompts, strict=True)]
        wholes = self._ids([p + a for p, a in zip(prompts, answers, strict=True)]) if rows else []
        kept, truncated, masked = [], [], []
        for row, prompt, answer, whole in zip(
            rows, self._ids(prompts) if rows else [], answers, wholes, strict=True
        ):
            # Tokenized together if that leaves the prompt as it will be at inference.
            joined = whole[: len(prompt)] == prompt
            ids = whole[len(prompt) :] if joined else self._ids([answer])[0]
            example = Example(str(row["id"]), self._bos + prompt, [*ids, self.stop_id])
            room = max_length - len(example.prompt)
            if room <= 0:
                masked.append(example.id)
                continue
            if example.length > max_length:
                truncated.append(example.id)
                example = Example(example.id, example.prompt, example.answer[:room])
            kept.append(example)
        return Examples(kept, truncated, masked)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _added_bos(self) -> list[int]:
        """What the tokenizer puts before plain text; a chat template writes its own."""
        bos = self.tokenizer.bos_token_id
        if self.kind == "chat" or bos is None:
            return []
        return [bos] if self.tokenizer(_PROBE)["input_ids"][:1] == [bos] else []

    # -- chat templates -----------------------------------------------------------------------

    def _opening(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _chat(self, messages: list[Message], *, open_turn: bool) -> str:
        from jinja2 import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=open_turn
                )
            )
        except TemplateError as error:
            hint = "empty dataset.system_prompt, or choose another base" if self.system else ""
            raise UserError(
                f"student.base: {self.base}: its chat template refuses the conversation ({error}); "
                f"{hint or 'choose another base'}"
            ) from None

    def _answer(self, row: Mapping[str, Any], prompt: str) -> str:
        """The text between the prompt and the token that ends the turn."""
        answer = str(row["output"])
        if self._alpaca is not None:
            return answer
        turns = [*self._opening(), Message("user", asked(row)), Message("assistant", answer)]
        whole = self._chat(turns, open_turn=False)
        if not whole.startswith(prompt):
            return answer  # the template writes a finished turn differently from an open one
        text, end, _ = whole[len(prompt) :].rpartition(self._stop_text())
        return text if end else answer

    def _stop_text(self) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.stop_id))

    def _turn_end(self) -> int:
        """The first special token a chat template writes after an answer, else eos."""
        eos = int(self.tokenizer.eos_token_id)
        if self.kind == "alpaca":
            return eos
        whole = self._chat([Message("user", _PROBE), Message("assistant", _PROBE)], open_turn=False)
        tail = self._ids([whole.rpartition(_PROBE)[2]])[0]
        special = {*self.tokenizer.all_special_ids}
        special |= {n for n, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return next((token for token in tail if token in special), eos)


def asked(row: Mapping[str, Any]) -> str:
    """A row's user message: the input follows the instruction after a blank line."""
    return f"{row['instruction']}\n\n{row['input']}" if row["input"] else str(row["instruction"])


def alpaca_prompts(path: str = ALPACA_PROMPT) -> tuple[Prompt, Prompt]:
    """Alpaca's training prompt for a record with an input, and for one without.

    Raises `RecipeError` where the file does not hold both, divided by the line of `WITHOUT_INPUT`.
    """
    prompt = load_prompt(path, frozenset({"instruction", "input"}))
    text = prompt.sections[0][1]
    with_input, divider, without = text.partition(WITHOUT_INPUT)
    if len(prompt.sections) != 1 or not divider or "{{" in without.replace("{{instruction}}", ""):
        raise RecipeError(
            f"{path}: needs the prompt with {{{{input}}}}, a line {WITHOUT_INPUT.strip()!r}, and "
            "the prompt without it"
        )

    def part(text: str) -> Prompt:
        return msgspec.structs.replace(prompt, sections=(("user", text),))

    return part(with_input), part(without)
