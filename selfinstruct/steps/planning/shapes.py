"""The shapes of well-known models, for what is said of them without their files."""

from __future__ import annotations

import msgspec

from selfinstruct.steps.planning.model import ModelSize


class Shape(msgspec.Struct, frozen=True):
    """A decoder's shape, as its config.json says it."""

    name: str
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = True
    qkv_bias: bool = False

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values, of one layer."""
        return self.kv_heads * self.hidden // self.heads

    @property
    def linear(self) -> int:
        """Parameters of the layers' linear maps."""
        h, kv = self.hidden, self.kv_width
        return self.layers * (2 * h * h + 2 * h * kv + 3 * h * self.mlp)

    @property
    def parameters(self) -> int:
        """All parameters."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        bias = self.layers * (self.hidden + 2 * self.kv_width) if self.qkv_bias else 0
        return self.linear + embeddings + bias + self.hidden * (2 * self.layers + 1)

    @property
    def size(self) -> ModelSize:
        """The same, as training is counted from it."""
        return ModelSize(
            parameters=self.parameters,
            linear=self.linear,
            ends=self.layers * (9 * self.hidden + 2 * self.kv_width + 3 * self.mlp),
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            vocabulary=self.vocabulary,
        )


STUDENTS = (
    Shape("SmolLM2-135M", 576, 1536, 30, 9, 3, 49_152),
    Shape("SmolLM2-360M", 960, 2560, 32, 15, 5, 49_152),
    Shape("Qwen2.5-0.5B", 896, 4864, 24, 14, 2, 151_936, qkv_bias=True),
    Shape("Llama-3.2-1B", 2048, 8192, 16, 32, 8, 128_256),
    Shape("Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, 151_936, qkv_bias=True),
    Shape("SmolLM2-1.7B", 2048, 8192, 24, 32, 32, 49_152),
    Shape("Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128_256),
    Shape("Mistral-7B-v0.3", 4096, 14_336, 32, 32, 8, 32_768, tied=False),
    Shape("Llama-3.1-8B", 4096, 14_336, 32, 32, 8, 128_256, tied=False),
)
TEACHERS = (
    STUDENTS[0],
    STUDENTS[5],
    STUDENTS[6],
    STUDENTS[8],
    Shape("Qwen2.5-14B", 5120, 13_824, 48, 40, 8, 152_064, tied=False, qkv_bias=True),
    Shape("Qwen2.5-32B", 5120, 27_648, 64, 40, 8, 152_064, tied=False, qkv_bias=True),
    Shape("Llama-3.3-70B", 8192, 28_672, 80, 64, 8, 128_256, tied=False),
)
