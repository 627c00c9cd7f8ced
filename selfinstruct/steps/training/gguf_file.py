"""A model folder of safetensors as a GGUF file, which llama.cpp, Ollama and LM Studio load.

llama.cpp's own converter is a script of its source tree and not on the package index. What it does
for the families here is short, and written after it (conversion/llama.py, qwen.py, gptneox.py):
names of weights by the package gguf, rows of the queries and keys reordered for Llama's rotary
embedding, and the facts of the architecture as metadata. `parity` compares what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from selfinstruct.core.errors import UserError
from selfinstruct.steps.model_config import load_config
from selfinstruct.steps.training.gguf_quants import file_type, pack, weight_type
from selfinstruct.steps.training.gguf_tokens import read_vocabulary
from selfinstruct.steps.training.loading import load_tokenizer

# transformers' model_type and llama.cpp's architecture.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt_neox": "gptneox",
}
CONVERTER = "llama.cpp's own convert_hf_to_gguf.py"
Tensor = Any


def write_gguf(
    model: Path,
    path: Path,
    *,
    precision: str,
    name: str,
    stop_id: int,
    license_id: str = "",
) -> None:
    """Write the model in the folder `model` as one GGUF file at `path`.

    Weights are read, reordered and packed one at a time, so memory holds one of them.

    Args:
        model: a whole model, no adapter, with its tokenizer.
        path: the file to write.
        precision: one of `gguf_quants.PRECISIONS`.
        name: the model's name in the metadata.
        stop_id: the token that ends an answer.
        license_id: the licence's identifier, where known.

    Raises `UserError` for an architecture or a tokenizer that this module does not know.
    """
    import gguf

    arch = architecture(model, name)
    config = load_config(model, name)
    writer = gguf.GGUFWriter(path, arch)
    try:
        writer.add_name(name)
        if license_id:
            writer.add_license(license_id)
        writer.add_file_type(file_type(precision))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_architecture(writer, config, name)
        _add_tokens(writer, model, config, name, stop_id)
        _write_weights(writer, model, config, arch, precision)
    finally:
        writer.close()


def architecture(model: Path, name: str) -> str:
    """llama.cpp's name for the architecture of the model in a folder. Raises `UserError`."""
    kind = load_config(model, name).model_type
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{name}: its architecture {kind} is not one this export writes "
            f"({', '.join(ARCHITECTURES)}); {CONVERTER} may convert student/merged"
        )
    return ARCHITECTURES[kind]


def _add_architecture(writer: Any, config: Any, name: str) -> None:
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    _add_rope_scaling(writer, rope, name)
    if config.model_type == "gpt_neox":
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_parallel_residual(config.use_parallel_residual)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)


def _add_rope_scaling(writer: Any, rope: dict[str, Any], name: str) -> None:
    import gguf

    kind = rope.get("rope_type", "default")
    if kind in ("default", "llama3"):  # Llama 3's is a tensor of factors
        return
    if kind != "linear":
        raise UserError(
            f"{name}: stretches its positions by {kind!r}, which this export does not know; "
            f"{CONVERTER} may convert student/merged"
        )
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(rope["factor"])


def _add_tokens(writer: Any, model: Path, config: Any, name: str, stop_id: int) -> None:
    tokenizer = load_tokenizer(model, name)
    found = read_vocabulary(tokenizer, config.vocab_size, name)
    writer.add_tokenizer_model(found.kind)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    if found.scores is not None:
        writer.add_token_scores(found.scores)
    if found.merges is not None:
        # The format has no empty lists; this merge joins two marks that no text holds.
        writer.add_token_merges(found.merges or [f"{chr(256)} {chr(257)}"])
    eos = int(tokenizer.eos_token_id)
    writer.add_eos_token_id(eos)
    if stop_id != eos:
        writer.add_eot_token_id(stop_id)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(found.add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(found.add_space)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _write_weights(writer: Any, model: Path, config: Any, arch: str, precision: str) -> None:
    import gguf

    layers, tied = config.num_hidden_layers, bool(config.tie_word_embeddings)
    numbers = {text: number for number, text in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[arch], layers)
    found: list[tuple[str, Any, Callable[[], Tensor]]] = []
    for theirs, shape, load in _weights(model, config):
        if tied and theirs in ("lm_head.weight", "embed_out.weight"):
            continue
        ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if ours is None:
            raise UserError(f"{model}: weight {theirs} has no place in a GGUF file of {arch}")
        kind = weight_type(ours, shape, precision, layers, tied=tied)
        found.append((ours, kind, load))
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(
            ours, shape, np.dtype(np.float32), math.prod(shape) // block * size, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, kind, load in found:
        writer.write_tensor_data(pack(load().float().numpy(), kind))


def _weights(
    model: Path, config: Any
) -> Iterator[tuple[str, tuple[int, ...], Callable[[], Tensor]]]:
    """Each weight's name and shape, and what loads it in the order llama.cpp wants."""
    from safetensors import safe_open

    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
        for key in keys:
            yield key, shapes[key], _loader(path, key, config)
    factors = rope_factors(config)
    if factors is not None:
        yield "rope.freqs.weight", tuple(factors.shape), lambda: factors


def _loader(path: Path, key: str, config: Any) -> Callable[[], Tensor]:
    def load() -> Tensor:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return reordered(key, file.get_tensor(key), config)

    return load


def reordered(key: str, weight: Tensor, config: Any) -> Tensor:
    """`weight` with its rows as llama.cpp has them.

    Llama's rotary embedding turns neighbouring rows there and the two halves of a head here.
    GPT-NeoX keeps queries, keys and values of a head together here and apart there.
    """
    heads = config.num_attention_heads
    if config.model_type in ("llama", "mistral"):
        if ".q_proj." in key:
            return _interleaved(weight, heads)
        if ".k_proj." in key:
            return _interleaved(weight, config.num_key_value_heads)
    if config.model_type == "gpt_neox" and ".query_key_value." in key:
        apart = weight.reshape(heads, 3, -1, *weight.shape[1:])
        return apart.swapaxes(0, 1).reshape(weight.shape)
    return weight


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    rows = weight.shape[0]
    halves = weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def rope_factors(config: Any) -> Tensor | None:
    """Llama 3's factors on the rotary frequencies (head_dim / 2), None for other scalings."""
    import torch

    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    old = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for at in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (at / dim)
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(float(rope["factor"]))
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return torch.tensor(factors)
