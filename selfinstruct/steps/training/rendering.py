"""A conversation as text, in the form that one base was, or will be, trained on.

A tokenizer with a chat template gets its own conversation format. One without gets Alpaca's
training prompt (Taori et al. 2023, train.py), whose text is data: `ALPACA_PROMPT`; later turns
follow it as in FastChat's `alpaca` conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.core.types import Message
from selfinstruct.steps.model_config import first_line
from selfinstruct.steps.prompts import Prompt, load_prompt
from selfinstruct.steps.training.template import special_tokens, unknown_mark

ALPACA_PROMPT = "prompts/alpaca_student.txt"
WITHOUT_INPUT = "\n=== without input ===\n"
NEXT_TURN = "\n\n### Instruction:\n{}\n\n### Response:"
_PROBE = "xyzzy"
_PROBES = (Message("user", _PROBE), Message("assistant", _PROBE))


class Rendering:
    """How conversations are written for one tokenizer.

    Args:
        tokenizer: of the base.
        base: the base's name, for messages.
        encoder: whether the prompt goes to an encoder, as T5's does: no token in it ends a turn.
        template: the file that the tokenizer's chat template was read from, "" for its own.

    Attributes:
        kind: "chat" or "alpaca".
        stop_id: the token that ends an answer.
        folds: whether the template knows no system message, so that its text goes before the first
            question.

    Raises `UserError` where the tokenizer has no token to end an answer with, or its chat template
    is of no use.
    """

    def __init__(
        self, tokenizer: Any, base: str, *, encoder: bool = False, template: str = ""
    ) -> None:
        self.tokenizer = tokenizer
        self.base = base
        self.encoder = encoder
        self.template = template
        self.kind: Literal["chat", "alpaca"] = "chat" if tokenizer.chat_template else "alpaca"
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"student.base: {base}: its tokenizer names no end-of-sequence token, so a student "
                "could not learn to stop; set eos_token in its tokenizer_config.json"
            )
        self.alpaca = None if self.kind == "chat" else alpaca_prompts()
        self.folds = self.kind == "chat" and self._knows_no_system()
        self.stop_id = self._turn_end()
        if template:
            self._check_marks()

    @property
    def stop_text(self) -> str:
        """The token that ends an answer, as text."""
        return str(self.tokenizer.convert_ids_to_tokens(self.stop_id))

    def render(self, messages: Sequence[Message], *, open_turn: bool) -> str:
        """`messages` as text; with `open_turn`, up to where the student's answer begins.

        Raises `UserError` where the chat template refuses them.
        """
        if self.alpaca is not None:
            return self._alpaca(messages)
        return self._chat(self.known(messages), open_turn=open_turn)

    def known(self, messages: Sequence[Message]) -> list[Message]:
        """`messages` as the template takes them: without a system message where it knows none."""
        return _folded(messages) if self.folds else list(messages)

    def turn(self, messages: Sequence[Message]) -> tuple[str, str]:
        """The prompt before the last message, the student's, and its text up to the stop token."""
        answer = messages[-1].content
        prompt = self.render(messages[:-1], open_turn=True)
        if self.alpaca is not None:
            return prompt, answer
        whole = self.render(messages, open_turn=False)
        if not whole.startswith(prompt):
            return (
                prompt,
                answer,
            )  # the template writes a finished turn differently from an open one
        text, end, _ = whole[len(prompt) :].rpartition(self.stop_text)
        return prompt, text if end else answer

    def with_input(self, instruction: str, given: str, system: str) -> str:
        """Alpaca's prompt for a record with an input; only where there is no chat template."""
        assert self.alpaca is not None  # noqa: S101
        text = self.alpaca[0].render(instruction=instruction, input=given)[0].content
        return f"{system}\n\n{text}" if system else text

    def _alpaca(self, messages: Sequence[Message]) -> str:
        assert self.alpaca is not None  # noqa: S101
        end = "" if self.encoder else self.stop_text
        parts: list[str] = []
        for message in messages:
            if message.role == "system":
                parts.append(f"{message.content}\n\n")
            elif message.role == "assistant":
                parts.append(f"{message.content}{end}")
            elif not any(m.role == "user" for m in messages[: len(parts)]):
                rendered = self.alpaca[1].render(instruction=message.content)
                parts.append(rendered[0].content)
            else:
                parts.append(NEXT_TURN.format(message.content))
        return "".join(parts)

    def _chat(self, messages: Sequence[Message], *, open_turn: bool) -> str:
        from jinja2 import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=open_turn
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            what = f"refuses the conversation ({first_line(error)})"
            raise self._fault(what, "mend it, or choose another base") from None

    def _fault(self, what: str, advice: str) -> UserError:
        if self.template:
            return UserError(f"student.chat_template: {self.template}: it {what}; mend it")
        return UserError(f"student.base: {self.base}: its chat template {what}; {advice}")

    def _knows_no_system(self) -> bool:
        """Whether the template refuses a system message or leaves it out, as Gemma's do."""
        try:
            return "plugh" not in self._chat(
                [Message("system", "plugh"), *_PROBES], open_turn=False
            )
        except UserError:
            return True

    def _turn_end(self) -> int:
        """The first special token a chat template writes after an answer, else eos."""
        eos = int(self.tokenizer.eos_token_id)
        if self.kind == "alpaca":
            return eos
        whole = self._chat(_PROBES, open_turn=False)
        if whole.count(_PROBE) < len(_PROBES):
            raise self._fault(
                "leaves out the question or the answer",
                "mend chat_template, or take it away to learn Alpaca's prompt",
            )
        tail = self.tokenizer(whole.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"]
        special = {*self.tokenizer.all_special_ids}
        special |= {n for n, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return next((token for token in tail if token in special), eos)

    def _check_marks(self) -> None:
        """Raises `UserError` where an answer ends with what only looks like one of the tokens.

        A student would learn to write it and go on. Before a question such marks are plain text, as
        Zephyr's <|user|> is for Mistral's tokenizer.
        """
        if self.kind == "alpaca":
            return
        tail = self._chat(_PROBES, open_turn=False).rpartition(_PROBE)[2]
        mark = unknown_mark(tail.partition(self.stop_text)[0], self.tokenizer)
        if mark is not None:
            known = ", ".join(special_tokens(self.tokenizer))
            raise UserError(
                f"student.chat_template: {self.template}: ends an answer with {mark}, which is no "
                f"token of {self.base}; use what it has ({known})"
            )


def _folded(messages: Sequence[Message]) -> list[Message]:
    """`messages` with the text of a leading system message before the first question."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    for at, message in enumerate(rest):
        if message.role == "user":
            rest[at] = Message("user", f"{system.content}\n\n{message.content}")
            break
    return rest


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
