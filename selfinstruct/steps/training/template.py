"""A chat template of the user's own, in the place of the base's: read, and held to its tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import UserError

# How the field writes tokens that stand for something: ChatML's and Llama 3's, DeepSeek's,
# SentencePiece's, Gemma's. Llama 2's [INST] is plain text there.
_MARK = re.compile(
    r"<\|[^\s<>]{1,40}\|>|<\uff5c[^\s<>]{1,40}\uff5c>|</?s>"
    r"|<(?:bos|eos|(?:start|begin|end)_of_\w{1,40})>"
)
_NAMED = 6  # tokens that a message offers at most


def read_template(path: str) -> str:
    """The Jinja text in the file at `path`. Raises `UserError` where it is not there or no Jinja.

    What it makes of a conversation is for `rendering.Rendering` to say.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        # Some editors begin a file with a mark that nobody sees, and that every prompt would have.
        text = Path(path).expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"student.chat_template: {path}: cannot be read ({error.strerror}); give a Jinja file"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"student.chat_template: {path}: not UTF-8 (byte {error.start})") from None
    if not text:  # to a tokenizer that is no template
        raise UserError(
            f"student.chat_template: {path}: is empty; write a template, or leave it out"
        )
    try:
        render_jinja_template([[{"role": "user", "content": ""}]], chat_template=text)
    except TemplateSyntaxError as error:
        raise UserError(
            f"student.chat_template: {path}:{error.lineno}: not Jinja ({error.message}); mend it"
        ) from None
    except (TemplateError, TypeError, ValueError):
        pass  # it may want more of a conversation than this
    return text


def unknown_mark(text: str, tokenizer: Any) -> str | None:
    """The first mark in `text` that looks like a token and is none of `tokenizer`'s."""
    known = tokenizer.get_vocab()
    return next((mark for mark in _MARK.findall(text) if mark not in known), None)


def special_tokens(tokenizer: Any) -> list[str]:
    """The tokens that a template can write, the first of them."""
    added = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    return list(dict.fromkeys([*tokenizer.all_special_tokens, *added]))[:_NAMED]
