"""Records as token ids: the prompt a student sees, and the answers it learns.

What the text looks like is `rendering`'s. An answer ends with the token that ends a turn, and that
token carries loss like any other: a student that never sees it never stops. Of a conversation every
answer of the assistant is learned. No token is added to the vocabulary, ever.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.core.types import Message
from selfinstruct.steps.training.rendering import Rendering

_PROBE = "xyzzy"
IGNORED = -100
SHOWN_IDS = 5
Row = TypeVar("Row", bound=Mapping[str, Any])


class Example(msgspec.Struct, frozen=True):
    """One record, or one conversation, as token ids.

    Loss is on `answer` alone, which ends with the token that ends a turn, unless it was cut. In a
    conversation `answer` runs from the first answer to the end of the last; `hidden` are the
    ranges (start, stop) of it that others wrote.
    """

    id: str
    prompt: list[int]
    answer: list[int]
    hidden: list[tuple[int, int]] = []

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.answer)

    @property
    def labels(self) -> list[int]:
        """What is learned at each place of `answer`; `IGNORED` where nothing is."""
        labels = list(self.answer)
        for start, stop in self.hidden:
            labels[start:stop] = [IGNORED] * len(labels[start:stop])
        return labels

    @property
    def learned(self) -> int:
        """Tokens with loss."""
        return len(self.answer) - self.labels.count(IGNORED)


class Examples(msgspec.Struct, frozen=True):
    """The examples that fit, the ids of those cut short, and of those left out as all prompt."""

    kept: list[Example]
    truncated: list[str]
    fully_masked: list[str]


class StudentFormat:
    """How records are written for one tokenizer.

    Args:
        tokenizer: of the base; gets a pad token if it has none.
        base: the base's name, for messages.
        system: first message of every conversation that has none of its own, where not empty.
        encoder: whether the prompt goes to an encoder of its own, as T5's does; it then ends with
            the tokens that the tokenizer puts around any text.
        template: the file that the tokenizer's chat template was read from, "" for its own.

    Raises `UserError` where the tokenizer has no token to end an answer with, or its chat template
    refuses the conversation; `RecipeError` for a broken prompt file.
    """

    def __init__(
        self,
        tokenizer: Any,
        base: str,
        system: str = "",
        *,
        encoder: bool = False,
        template: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self.base = base
        self.system = system
        self.encoder = encoder
        self.rendering = Rendering(tokenizer, base, encoder=encoder, template=template)
        self.kind = self.rendering.kind
        self.stop_id = self.rendering.stop_id
        if tokenizer.pad_token_id is None:
            # Labels are built here and padding has its own mask, so sharing a token hides nothing.
            tokenizer.pad_token = self.rendering.stop_text
        self._before_text = self._added_bos()
        # A chat template writes its own.
        self._bos = [] if self.kind == "chat" else self._before_text

    @property
    def stop_ids(self) -> list[int]:
        """Every token that ends an answer, the one trained on first."""
        return list(dict.fromkeys([self.stop_id, int(self.tokenizer.eos_token_id)]))

    @property
    def tag(self) -> str:
        """What the format depends on besides the tokenizer; goes into fingerprints."""
        prompts = [prompt.tag for prompt in self.rendering.alpaca or ()]
        return " ".join([self.kind, *prompts, self.system])

    @property
    def notes(self) -> list[str]:
        """What the user should know about how records are written."""
        notes = []
        if self.rendering.template:
            notes.append(self._template_note())
        if self.kind == "alpaca":
            notes.append(f"{self.base} has no chat template, so Alpaca's prompt is learned")
        elif self.rendering.folds and self.system:
            notes.append(
                f"the chat template of {self.base} knows no system message, so "
                "dataset.system_prompt opens the first question"
            )
        return notes

    def prompt(self, row: Mapping[str, Any]) -> str:
        """The text before the answer: for a conversation, before its last one."""
        alone = not row.get("messages")
        if alone and row["input"] and self.rendering.alpaca is not None:
            return self.rendering.with_input(row["instruction"], row["input"], self.system)
        return self.rendering.render(self.question(row), open_turn=True)

    def question(self, row: Mapping[str, Any]) -> list[Message]:
        """The messages before the answer: for a conversation, before its last one."""
        if row.get("messages"):
            return self._messages({"messages": row["messages"][:-1]})
        return self._opening(row)

    def prompt_ids(self, rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """The prompts of `rows` as token ids."""
        return self._prompt_ids([self.prompt(row) for row in rows])

    def taken(self, rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
        """The rows that the chat template takes, and what is to be said of those that it refuses.

        Many templates want user and assistant to take turns. Raises `UserError` where none is left.
        """
        kept, refused, why = list[Row](), list[str](), ""
        for row in rows:
            try:
                if row.get("messages"):
                    self.rendering.render(self._messages(row), open_turn=False)
                kept.append(row)
            except UserError as error:
                refused.append(str(row["id"]))
                why = why or str(error)
        if not refused:
            return kept, []
        more = ", ..." if len(refused) > SHOWN_IDS else ""
        ids = ", ".join(refused[:SHOWN_IDS])
        note = f"{len(refused)} conversations were left out ({ids}{more}): {why}"
        if not kept:
            raise UserError(note)
        return kept, [note]

    def examples(self, rows: Sequence[Mapping[str, Any]], max_length: int) -> Examples:
        """`rows` as examples of at most `max_length` tokens; none is lost without being named."""
        return cut(self.tokenize(rows), max_length)

    def tokenize(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """`rows` as examples of whatever length.

        A row has `id`, and `messages` or else `instruction`, `input` and `output`. A conversation
        whose earlier turns are written differently once they are past (Qwen3's template drops the
        reasoning of all but the last), or that an encoder reads, becomes an example for each
        answer, with ids such as `r1#2`: what a student meets at inference is then what it learned.
        """
        turns: list[tuple[str, str, str]] = []  # (id, prompt, answer)
        found: list[Example | None] = []
        for row in rows:
            ident = str(row["id"])
            if not row.get("messages"):
                turns.append((ident, *self.turn(row, str(row["output"]))))
                found.append(None)
                continue
            parts = self._turns(row)
            whole = None if self.encoder or len(parts) == 1 else self._whole(ident, parts)
            if whole is not None:
                found.append(whole)
                continue
            many = len(parts) > 1
            turns += [
                (f"{ident}#{number}" if many else ident, prompt, answer)
                for number, (prompt, answer) in enumerate(parts, 1)
            ]
            found += [None] * len(parts)
        made = iter(self.singles(turns))
        return [example if example is not None else next(made) for example in found]

    def singles(self, turns: Sequence[tuple[str, str, str]]) -> list[Example]:
        """An example for each (id, prompt, answer)."""
        prompts = [prompt for _, prompt, _ in turns]
        wholes = self._ids([prompt + answer for _, prompt, answer in turns])
        bare = self._ids(prompts)
        examples = []
        for (ident, _, answer), seen, plain, whole in zip(
            turns, self._prompt_ids(prompts), bare, wholes, strict=True
        ):
            # Tokenized together if that leaves the prompt as it will be at inference.
            joined = not self.encoder and whole[: len(plain)] == plain
            ids = whole[len(plain) :] if joined else self._ids([answer])[0]
            examples.append(Example(ident, seen, [*ids, self.stop_id]))
        return examples

    def _whole(self, ident: str, parts: list[tuple[str, str]]) -> Example | None:
        """A conversation as one example, or None where its earlier turns do not stay as they were.

        Each prompt must begin with all that came before it, as text and as tokens.
        """
        stop = self.rendering.stop_text
        edges = [text for prompt, answer in parts for text in (prompt, prompt + answer + stop)]
        if not all(later.startswith(sooner) for sooner, later in itertools.pairwise(edges)):
            return None
        tokens = self._ids(edges)
        whole = tokens[-1]
        if whole[-1:] != [self.stop_id]:
            return None
        if any(whole[: len(part)] != part for part in tokens):
            return None
        ends = [len(part) for part in tokens]
        first = ends[0]
        others = zip(ends[1:-1:2], ends[2::2], strict=True)
        hidden = [(start - first, end - first) for start, end in others]
        return Example(ident, self._bos + whole[:first], whole[first:], hidden)

    def turn(self, row: Mapping[str, Any], answer: str) -> tuple[str, str]:
        """The prompt for a row, and the text of `answer` up to the token that ends it.

        A row is a question: `messages` that end with one, or `instruction` and `input`.
        """
        if row.get("messages"):
            return self.rendering.turn([*self._messages(row), Message("assistant", answer)])
        if self.rendering.alpaca is not None:
            return self.prompt(row), answer
        return self.rendering.turn([*self._opening(row), Message("assistant", answer)])

    def _turns(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(prompt, answer) for each answer of a conversation."""
        messages = self._messages(row)
        return [
            self.rendering.turn(messages[: at + 1])
            for at, message in enumerate(messages)
            if message.role == "assistant"
        ]

    def _messages(self, row: Mapping[str, Any]) -> list[Message]:
        messages = [Message(one["role"], one["content"]) for one in row["messages"]]
        if self.system and messages[0].role != "system":
            messages.insert(0, Message("system", self.system))
        return messages

    def _opening(self, row: Mapping[str, Any]) -> list[Message]:
        system = [Message("system", self.system)] if self.system else []
        return [*system, Message("user", asked(row))]

    def _prompt_ids(self, prompts: list[str]) -> list[list[int]]:
        if self.encoder and prompts:
            return list(self.tokenizer(prompts)["input_ids"])
        return [self._bos + ids for ids in self._ids(prompts)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _template_note(self) -> str:
        name, bos = Path(self.rendering.template).name, str(self.tokenizer.bos_token)
        note = f"conversations are written by {name}, not by a template of {self.base}"
        opening = self.rendering.render([Message("user", _PROBE)], open_turn=True)
        if not self._before_text or opening.startswith(bos):
            return note
        return (
            f"{note}; it leaves out {bos}, which the tokenizer puts before every other text: "
            "{{ bos_token }} writes it"
        )

    def _added_bos(self) -> list[int]:
        """What the tokenizer puts before plain text."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return []
        return [bos] if self.tokenizer(_PROBE)["input_ids"][:1] == [bos] else []


def cut(examples: Sequence[Example], max_length: int) -> Examples:
    """`examples` of at most `max_length` tokens, cut at their ends; which were cut or left out."""
    kept, truncated, masked = [], [], []
    for example in examples:
        room = max_length - len(example.prompt)
        if room <= 0:
            masked.append(example.id)
            continue
        if example.length > max_length:
            truncated.append(example.id)
            example = msgspec.structs.replace(example, answer=example.answer[:room])
        kept.append(example)
    return Examples(kept, truncated, masked)


def asked(row: Mapping[str, Any]) -> str:
    """A row's user message: the input follows the instruction after a blank line."""
    return f"{row['instruction']}\n\n{row['input']}" if row["input"] else str(row["instruction"])
