"""An Ollama Modelfile: the conversation format of a tokenizer, rewritten as a Go template.

Ollama does not run Jinja. The pieces of the format are found by rendering conversations of marked
messages; put together again they must give what the student was trained on, or nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from selfinstruct.core.errors import UserError
from selfinstruct.core.types import Message
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.rendering import Rendering

# Plain words that no template changes, trims or merges with what stands beside them.
_SYSTEM, _ASK, _ANSWER, _NEXT = "plugh", "xyzzy", "quux", "frobnicate"


class Pieces(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation format as text around messages.

    `opening` stands before a conversation without a system message, `before_system` and
    `after_system` around one; `user` before each question, `assistant` between a question and its
    answer, `end` after an answer.
    """

    opening: str
    before_system: str
    after_system: str
    user: str
    assistant: str
    end: str

    def render(self, messages: Sequence[Message]) -> str:
        """`messages` up to where the next answer begins, as Ollama's template writes them."""
        first = messages[0]
        text = self.opening
        if first.role == "system":
            text, messages = f"{self.before_system}{first.content}{self.after_system}", messages[1:]
        for message in messages:
            if message.role == "user":
                text += f"{self.user}{message.content}{self.assistant}"
            else:
                text += f"{message.content}{self.end}"
        return text

    def template(self) -> str:
        """The same for Ollama (its docs/template.md, over Go's text/template)."""
        return (
            f"{{{{ if .System }}}}{self.before_system}{{{{ .System }}}}{self.after_system}"
            f"{{{{ else }}}}{self.opening}{{{{ end }}}}"
            f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{self.user}{{{{ .Content }}}}'
            f'{self.assistant}{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{self.end}'
            "{{ end }}{{ end }}"
        )


def modelfile(form: StudentFormat, gguf: str, *, adds_bos: bool) -> str:
    """The text of a Modelfile for the file called `gguf`, which lies beside it.

    `adds_bos` says that the GGUF file makes the runner put the first token before every prompt.
    Raises `UserError` for a format that Ollama's templates cannot say.
    """
    pieces = find_pieces(form.rendering)
    bos = form.tokenizer.bos_token or ""
    if adds_bos and bos:
        pieces = msgspec.structs.replace(
            pieces,
            opening=pieces.opening.removeprefix(bos),
            before_system=pieces.before_system.removeprefix(bos),
        )
    stops = [str(form.tokenizer.convert_ids_to_tokens(number)) for number in form.stop_ids]
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{pieces.template()}"""']
    if form.system:
        lines.append(f'SYSTEM """{form.system}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n"


def find_pieces(rendering: Rendering) -> Pieces:
    """The pieces of `rendering`'s format. Raises `UserError` where it is not made of such."""
    system, ask = Message("system", _SYSTEM), Message("user", _ASK)
    answer, following = Message("assistant", _ANSWER), Message("user", _NEXT)
    cases = [[ask], [system, ask], [ask, answer, following], [system, ask, answer, following]]
    texts = [rendering.render(case, open_turn=True) for case in cases]
    opened, assistant = _around(texts[0], _ASK)
    before_system, rest = _around(texts[1], _SYSTEM)
    after_system = _around(rest, _ASK)[0]
    end = _around(_around(texts[2], _ANSWER)[1], _NEXT)[0]
    # What comes before every question alike; the rest ends what stood before it.
    user = _common_end(opened, after_system, end)
    pieces = Pieces(
        opening=opened.removesuffix(user),
        before_system=before_system,
        after_system=after_system.removesuffix(user),
        user=user,
        assistant=assistant,
        end=end.removesuffix(user),
    )
    whole = pieces.template()
    said = all(pieces.render(case) == text for case, text in zip(cases, texts, strict=True))
    if (
        not said
        or '"""' in whole
        or any("{{" in piece for piece in msgspec.structs.astuple(pieces))
    ):
        raise UserError(
            f"{rendering.base}: its chat template cannot be said in Ollama's; export without "
            "--ollama: the GGUF file holds the template itself, which llama.cpp and LM Studio use"
        )
    return pieces


def _around(text: str, mark: str) -> tuple[str, str]:
    before, _, after = text.partition(mark)
    return before, after


def _common_end(*texts: str) -> str:
    """The longest text that all of them end with."""
    shortest = min(texts, key=len)
    starts = range(len(shortest) + 1)
    return next(shortest[at:] for at in starts if all(t.endswith(shortest[at:]) for t in texts))
