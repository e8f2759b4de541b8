"""How long a Llama takes on NVIDIA's GPUs, calculated from data sheets: a model of an engine, nothing that was measured.

Reading a prompt is bound by arithmetic: two operations per parameter and token. A decode step is bound by memory: it reads all weights
once and, for each sequence, its KV cache; the arithmetic of each sequence and what an engine needs around a step are added, as if nothing
overlapped. Weights and cache have two bytes per number (bfloat16). Docs: docs/reference/runtimes.md, "Timing by name".

Shapes are those of `config.json` of the models. GPUs: NVIDIA's data sheets of A100 80 GB SXM and H100 SXM5; dense bfloat16, no sparsity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BYTES = 2
# What is reached of a data sheet's numbers, and what an engine adds. These are assumptions: round numbers, no measurements.
BANDWIDTH_SHARE = 0.7
ARITHMETIC_SHARE = 0.5
STEP_SECONDS = 0.001  # scheduling, sampling, starting kernels
ALL_REDUCE_SECONDS = 20e-6  # two for each layer where several GPUs share it
CONTEXT_TOKENS = 256  # of a sequence, whose cache a step reads: a short chat
MEMORY_SHARE = 0.9  # vLLM's --gpu-memory-utilization
WORKING_BYTES = 2e9  # of a GPU, for activations
COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A Llama: grouped-query attention, a gated MLP, and an output matrix that is the input's (`is_tied`) or its own."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    is_tied: bool
    vocabulary: int = 128_256

    @property
    def parameters(self) -> int:
        return self.read_parameters + (0 if self.is_tied else self.vocabulary * self.hidden)

    @property
    def read_parameters(self) -> int:
        """Those that a step reads: of an input matrix of its own it looks up rows only."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_size
        layer = attention + 3 * self.hidden * self.mlp + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden

    @property
    def kv_bytes(self) -> int:
        """Of a token: a key and a value of each layer."""
        return 2 * self.layers * self.kv_heads * self.head_size * _BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """Bytes per second, operations per second, bytes."""

    bandwidth: float
    arithmetic: float
    memory: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What the options of the same names say."""

    prefill_tokens_per_second: float
    decode_base_ms: float
    decode_per_sequence_ms: float
    kv_tokens: int


SHAPES = {
    "llama-3.2-1b": Shape(layers=16, hidden=2048, heads=32, kv_heads=8, head_size=64, mlp=8192, is_tied=True),
    "llama-3.2-3b": Shape(
        layers=28, hidden=3072, heads=24, kv_heads=8, head_size=128, mlp=8192, is_tied=True
    ),
    "llama-3.1-8b": Shape(
        layers=32, hidden=4096, heads=32, kv_heads=8, head_size=128, mlp=14_336, is_tied=False
    ),
    "llama-3.1-70b": Shape(
        layers=80, hidden=8192, heads=64, kv_heads=8, head_size=128, mlp=28_672, is_tied=False
    ),
}
GPUS = {
    "a100": Gpu(bandwidth=2.039e12, arithmetic=312e12, memory=80 * 2**30),
    "h100": Gpu(bandwidth=3.35e12, arithmetic=989e12, memory=80 * 2**30),
}


def named(name: str) -> Timing:
    """`llama-3.1-70b/a100x4`: a model, a GPU and how many of them share each layer. Raises ValueError."""
    model, _, place = name.partition("/")
    found = re.fullmatch(r"([a-z0-9]+?)(?:x(\d))?", place)
    shape, gpu = SHAPES.get(model), GPUS.get(found[1]) if found else None
    count = int(found[2] or 1) if found else 0
    if shape is None or gpu is None or count not in COUNTS:
        raise ValueError(
            f"{name!r} is no timing: write MODEL/GPU or MODEL/GPUxN, of the models {', '.join(SHAPES)}, "
            f"the GPUs {', '.join(GPUS)} and N of {', '.join(map(str, COUNTS))}"
        )
    return timing(name, shape, gpu, count)


def timing(name: str, shape: Shape, gpu: Gpu, count: int) -> Timing:
    """Raises ValueError where the weights and a sequence of `CONTEXT_TOKENS` do not fit."""
    bandwidth = count * gpu.bandwidth * BANDWIDTH_SHARE
    arithmetic = count * gpu.arithmetic * ARITHMETIC_SHARE
    token_seconds = 2 * shape.parameters / arithmetic
    exchange = 2 * shape.layers * ALL_REDUCE_SECONDS if count > 1 else 0.0
    weights = shape.parameters * _BYTES
    room = count * (gpu.memory * MEMORY_SHARE - WORKING_BYTES) - weights
    if room < CONTEXT_TOKENS * shape.kv_bytes:
        raise ValueError(
            f"{name!r} does not fit: {weights / 1e9:.0f} GB of weights; name more GPUs, such as x{count * 2}"
        )
    return Timing(
        prefill_tokens_per_second=1 / token_seconds,
        decode_base_ms=1000 * (shape.read_parameters * _BYTES / bandwidth + STEP_SECONDS + exchange),
        decode_per_sequence_ms=1000 * (token_seconds + CONTEXT_TOKENS * shape.kv_bytes / bandwidth),
        kv_tokens=int(room / shape.kv_bytes),
    )
