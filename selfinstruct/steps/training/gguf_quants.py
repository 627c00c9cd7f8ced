"""Which precision each weight of a GGUF file gets, and the packing of the quantized ones.

The choices are those of llama.cpp's `llama-quantize` (src/llama-quant.cpp): Q4_K_M, say, keeps the
output and some of the attention values and down projections in Q6_K. The packing is done by ggml
itself, in the library that xllamacpp brings for the local teacher; the package gguf packs Q8_0 in
numpy, but none of the K types.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from selfinstruct.core.errors import MissingDependency, SelfInstructError

# From the exact to the small.
PRECISIONS = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
_FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
    "q6_k": "MOSTLY_Q6_K",
    "q5_k_m": "MOSTLY_Q5_K_M",
    "q4_k_m": "MOSTLY_Q4_K_M",
}
_PLAIN = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q6_k": "Q6_K"}
_MIXED = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K"}
# For rows that are no multiple of a K type's block of 256.
_SHORT_ROWS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def file_type(precision: str) -> int:
    """The file's type as its metadata names it."""
    import gguf

    return int(gguf.LlamaFileType[_FILE_TYPES[precision]])


def weight_type(
    name: str, shape: tuple[int, ...], precision: str, layers: int, *, tied: bool
) -> Any:
    """The `GGMLQuantizationType` of the weight called `name` (GGUF's name).

    Args:
        name: such as "blk.3.ffn_down.weight".
        shape: rows by columns; vectors stay in float32.
        precision: one of `PRECISIONS`.
        layers: blocks of the model.
        tied: whether the embeddings are also the output.
    """
    import gguf

    types = gguf.GGMLQuantizationType
    if len(shape) < 2:
        return types.F32
    chosen = _PLAIN.get(precision) or _mixed(name, precision, layers, tied=tied)
    columns = shape[-1]
    if columns % gguf.GGML_QUANT_SIZES[types[chosen]][0]:
        chosen = _SHORT_ROWS.get(chosen, chosen)
    if columns % gguf.GGML_QUANT_SIZES[types[chosen]][0]:
        chosen = "F16"
    return types[chosen]


def _mixed(name: str, precision: str, layers: int, *, tied: bool) -> str:
    """llama.cpp's choice for the mixtures named _M."""
    base = _MIXED[precision]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q6_K"
    parts = name.split(".")
    if parts[-2] == "attn_qkv":
        return {"Q4_K": "Q5_K", "Q5_K": "Q6_K"}[base]
    if parts[-2] in ("attn_v", "ffn_down") and _more_bits(int(parts[1]), layers):
        return "Q6_K"
    return base


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the blocks, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def pack(weight: npt.NDArray[np.float32], kind: Any) -> npt.NDArray[Any]:
    """`weight` in the type `kind`: an array of that type, or the bytes of each row."""
    import gguf

    types = gguf.GGMLQuantizationType
    if kind == types.F32:
        return np.ascontiguousarray(weight, dtype=np.float32)
    if kind == types.F16:
        return np.ascontiguousarray(weight.astype(np.float16))
    if kind == types.BF16:
        return np.asarray(gguf.quants.quantize(weight, kind))
    return _pack_by_ggml(np.ascontiguousarray(weight, dtype=np.float32), kind)


def _pack_by_ggml(weight: npt.NDArray[np.float32], kind: Any) -> npt.NDArray[np.uint8]:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    columns = weight.shape[-1]
    rows = weight.size // columns
    out = np.empty((*weight.shape[:-1], columns // block * size), dtype=np.uint8)
    written = _ggml().ggml_quantize_chunk(
        int(kind), weight.ctypes.data, out.ctypes.data, 0, rows, columns, None
    )
    if written != out.nbytes:
        raise SelfInstructError(
            f"ggml wrote {written} bytes of {kind.name} instead of {out.nbytes}"
        )
    return out


@cache
def _ggml() -> Any:
    """ggml's library. Raises `MissingDependency` without xllamacpp."""
    try:
        from xllamacpp import xllamacpp
    except ImportError:
        raise MissingDependency("xllamacpp", "local", "a GGUF file of the student") from None
    library = ctypes.CDLL(xllamacpp.__file__)
    try:
        quantize = library.ggml_quantize_chunk
    except AttributeError:
        raise SelfInstructError(
            "this build of xllamacpp does not offer ggml_quantize_chunk; export with --gguf f16 "
            "and quantize that file with llama.cpp's llama-quantize"
        ) from None
    # size_t ggml_quantize_chunk(type, src, dst, start, rows, columns, importance matrix)
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return library
