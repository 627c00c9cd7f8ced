"""A Hugging Face tokenizer as the vocabulary of a GGUF file.

llama.cpp tokenizes by itself, in one of two ways that matter here: byte-level BPE ("gpt2", with the
name of the rule that cuts text into words before the merges) and SentencePiece's BPE ("llama", with
a score for each piece). Which one, and which rule, is read from the structure of tokenizer.json;
llama.cpp's own converter knows the rule by a hash over one text, and so only published tokenizers.
Whether the ids agree is for `parity` to say.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from selfinstruct.core.errors import UserError

# What llama.cpp calls a tokenizer of no added meaning: see its `llama_token_type`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The rules that cut text into words, as tokenizer.json writes them, and llama.cpp's names.
_BY_PATTERN = {
    _LLAMA3: "llama-bpe",
    _LLAMA3.replace("{1,3}", ""): "qwen2",
    _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2",
}


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF file says of its tokens; `kind` is "gpt2" or "llama", `pre` a word rule."""

    kind: str
    pre: str
    tokens: list[bytes]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    add_bos: bool
    add_space: bool


def read_vocabulary(tokenizer: Any, rows: int, name: str) -> Vocabulary:
    """The vocabulary of `tokenizer` for a model of `rows` embeddings.

    Args:
        tokenizer: a fast tokenizer of transformers.
        rows: the model's embeddings; ids that are no token become unused ones.
        name: the model's, for messages.

    Raises `UserError` for a tokenizer that llama.cpp has no equal of.
    """
    whole = orjson.loads(tokenizer.backend_tokenizer.to_str())
    model = whole["model"]
    if model["type"] != "BPE":
        raise _unknown(name, f"is of type {model['type']}")
    merges = [_pair(merge) for merge in model["merges"]]
    kind = "llama" if model.get("byte_fallback") else "gpt2"
    tokens, types = _tokens(tokenizer, rows, bytes_as_tokens=kind == "llama")
    return Vocabulary(
        kind=kind,
        pre="default" if kind == "llama" else _words_rule(whole, name),
        tokens=tokens,
        types=types,
        scores=_scores(tokens, merges) if kind == "llama" else None,
        # A space inside a piece would end it: llama.cpp reads byte 0x20 as this letter.
        merges=None if kind == "llama" else [_joined(merge) for merge in merges],
        add_bos=adds_bos(tokenizer),
        add_space=kind == "llama" and _adds_space(whole),
    )


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _joined(merge: tuple[str, str]) -> str:
    return " ".join(part.replace(" ", chr(ord(" ") + 256)) for part in merge)


def _tokens(tokenizer: Any, rows: int, *, bytes_as_tokens: bool) -> tuple[list[bytes], list[int]]:
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    tokens, types = [], []
    for number in range(rows):
        token = by_id.get(number)
        if token is None:
            tokens.append(f"[PAD{number}]".encode())
            types.append(UNUSED)
            continue
        tokens.append(token.encode())
        if number == tokenizer.unk_token_id and bytes_as_tokens:
            types.append(UNKNOWN)
        elif number in special or (number in added and added[number].special):
            types.append(CONTROL)
        elif number in added:
            types.append(USER_DEFINED)
        elif bytes_as_tokens and _is_byte(token):
            types.append(BYTE)
        else:
            types.append(NORMAL)
    return tokens, types


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(tokens: list[bytes], merges: list[tuple[str, str]]) -> list[float]:
    """Scores under which SentencePiece merges in the order of `merges`: the earlier, the higher."""
    rank: dict[bytes, float] = {}
    for number, (left, right) in enumerate(merges):
        rank.setdefault((left + right).encode(), -float(number))
    return [rank.get(token, -float(len(merges) + number)) for number, token in enumerate(tokens)]


def _words_rule(whole: dict[str, Any], name: str) -> str:
    """llama.cpp's name for the rule that cuts text into words."""
    if whole.get("normalizer") not in (None, {"type": "NFC"}):
        raise _unknown(name, f"normalizes text with {whole['normalizer']['type']}")
    outer = whole["pre_tokenizer"] or {"type": "no word rule"}
    parts = outer["pretokenizers"] if outer["type"] == "Sequence" else [outer]
    kinds = [part["type"] for part in parts]
    if any(part.get("add_prefix_space") for part in parts if part["type"] == "ByteLevel"):
        raise _unknown(name, "puts a space before text")
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and parts[0]["behavior"] == "Isolated":
        found = _BY_PATTERN.get(parts[0]["pattern"].get("Regex", ""))
        if found is not None:
            return found
    raise _unknown(name, f"cuts text into words with {' and '.join(kinds)}")


def adds_bos(tokenizer: Any) -> bool:
    """Whether a prompt begins with the tokenizer's first token.

    It does where the tokenizer puts it before plain text, unless a chat template leaves it out:
    llama.cpp would put it there all the same.
    """
    bos = tokenizer.bos_token_id
    if bos is None or list(tokenizer("a")["input_ids"][:1]) != [bos]:
        return False
    if not tokenizer.chat_template:
        return True
    turn = [{"role": "user", "content": "a"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return str(text).startswith(str(tokenizer.bos_token))


def _adds_space(whole: dict[str, Any]) -> bool:
    """Whether SentencePiece's space is put before text."""
    text = orjson.dumps([whole.get("normalizer"), whole.get("pre_tokenizer")]).decode()
    return (
        '"type":"Prepend"' in text
        or '"prepend_scheme":"first"' in text
        or ('"prepend_scheme":"always"' in text)
    )


def _unknown(name: str, what: str) -> UserError:
    return UserError(
        f"{name}: its tokenizer {what}, which this export does not know; convert student/merged "
        "with llama.cpp's own convert_hf_to_gguf.py"
    )
