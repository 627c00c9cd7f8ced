"""What is measured on a GPU: each case one training, or one generation, in a process of its own.

They stand in the order of what they are worth, since a GPU may be there for minutes only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# Llama's shapes: hidden size, MLP, layers, heads, key-value heads, vocabulary. Weights are random.
SHAPES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32_000,
        "tie_word_embeddings": False,
    },
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
    # A dry run's, on a processor.
    "tiny": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One measurement.

    `lengths` is "whole" (each example has all 2,048 tokens) or "alpaca" (many short, few long).
    `settings` are keys of the recipe's student section, for TRL the base's `dtype`. `limit_s` is
    when its process is ended.
    """

    part: str
    what: Literal["ours", "trl", "generate"]
    shape: str
    method: Literal["lora", "qlora", "full"] = "lora"
    lengths: Literal["whole", "alpaca"] = "whole"
    settings: dict[str, Any] = field(default_factory=dict)
    limit_s: int = 120


CASES: dict[str, Case] = {
    "full-7b-ours": Case("full-7b", "ours", "7b", "full", limit_s=180),
    "full-7b-trl": Case("full-7b", "trl", "7b", "full", limit_s=180),
    "full-7b-ours-8bit": Case(
        "full-7b", "ours", "7b", "full", settings={"optimizer": "adamw_8bit"}, limit_s=180
    ),
    "lora-7b-ours": Case("lora-7b", "ours", "7b"),
    "lora-7b-trl": Case("lora-7b", "trl", "7b"),
    # As somebody writes it who knows that the base need not be in float32.
    "lora-7b-trl-bf16": Case("lora-7b", "trl", "7b", settings={"dtype": "bfloat16"}),
    "lora-1b-ours": Case("lora-1b", "ours", "1b"),
    "lora-1b-trl": Case("lora-1b", "trl", "1b"),
    "full-1b-ours": Case("full-1b", "ours", "1b", "full"),
    "full-1b-trl": Case("full-1b", "trl", "1b", "full"),
    "qlora-8b-ours": Case("qlora-8b", "ours", "8b", "qlora", limit_s=240),
    "qlora-8b-trl": Case("qlora-8b", "trl", "8b", "qlora", limit_s=240),
    "packing-none": Case("packing", "ours", "1b", lengths="alpaca", settings={"packing": False}),
    "packing-sdpa": Case(
        "packing", "ours", "1b", lengths="alpaca", settings={"packing": True, "attention": "sdpa"}
    ),
    "packing-flash": Case(
        "packing", "ours", "1b", lengths="alpaca",
        settings={"packing": True, "attention": "flash_attention_2"},
    ),
    "packing-flex": Case(
        "packing", "ours", "1b", lengths="alpaca",
        settings={"packing": True, "attention": "flex_attention"},
    ),
    "kernels-none": Case("kernels", "ours", "1b", settings={"liger": False, "attention": "sdpa"}),
    "kernels-liger": Case("kernels", "ours", "1b", settings={"liger": True, "attention": "sdpa"}),
    "kernels-flash": Case(
        "kernels", "ours", "1b", settings={"liger": False, "attention": "flash_attention_2"}
    ),
    "kernels-compile": Case(
        "kernels", "ours", "1b", settings={"liger": False, "attention": "sdpa", "compile": True},
        limit_s=240,
    ),
    "generation": Case("generation", "generate", "1b"),
}  # fmt: skip
