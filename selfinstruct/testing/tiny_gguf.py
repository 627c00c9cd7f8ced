"""A GGUF file of 300 KB that a llama.cpp server loads: random weights in the real format.

It is a one-layer Llama whose tokens are the 256 bytes and ChatML's two marks. What it writes is
noise, but through the real server: chat template, grammar, limits and all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LAYERS, _WIDTH, _HEADS, _HIDDEN, _CONTEXT = 1, 64, 4, 128, 2048
_MARKS = ("<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_tiny_gguf(path: Path, seed: int = 0) -> None:
    """Write the model to `path`. Needs the packages gguf and numpy."""
    import gguf
    import numpy as np

    tokens = [*_byte_letters(), *_MARKS]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    _add_tokenizer(writer, tokens)
    rng = np.random.default_rng(seed)
    for name, shape in _shapes(len(tokens)).items():
        values = rng.normal(0.0, 0.5, shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, tokens: list[str]) -> None:
    import gguf

    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in _MARKS else normal for token in tokens])
    # The reader wants a merge: this one is of the bytes 0 and 1, which no prompt holds.
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_bos_token_id(tokens.index(_MARKS[0]))
    writer.add_eos_token_id(tokens.index(_MARKS[1]))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    block = {
        "attn_norm": (_WIDTH,),
        "attn_q": (_WIDTH, _WIDTH),
        "attn_k": (_WIDTH, _WIDTH),
        "attn_v": (_WIDTH, _WIDTH),
        "attn_output": (_WIDTH, _WIDTH),
        "ffn_norm": (_WIDTH,),
        "ffn_gate": (_HIDDEN, _WIDTH),
        "ffn_up": (_HIDDEN, _WIDTH),
        "ffn_down": (_WIDTH, _HIDDEN),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, _WIDTH)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"output_norm.weight": (_WIDTH,), "output.weight": (vocabulary, _WIDTH)}


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]
