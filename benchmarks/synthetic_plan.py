"""The tensors of a synthetic checkpoint before they exist: names, shapes and spreads.

It knows jina-embeddings-v4's layout and nothing of files or of random numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TASKS = ("retrieval", "text-matching", "code")

GAIN = 0.8
"""Times 1 / sqrt(fan-in): a layer's output is about as large as its input."""
NORM_STD = 0.1
BIAS_STD = 0.02
EMBEDDING_STD = 0.5
"""About as large as what the vision tower puts in its place. With the 0.02 of a trained model, random
layers would drown the tokens: those of one text would nearly coincide."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Every number that sizes a checkpoint."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    first_special_id: int
    mrope_section: tuple[int, int, int]
    max_window_layers: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_intermediate: int
    full_attention_blocks: tuple[int, ...]
    projector_dim: int
    matryoshka_dims: tuple[int, ...]
    lora_rank: int
    lora_alpha: int

    @property
    def kv_hidden(self) -> int:
        """Outputs of k_proj and of v_proj."""
        return self.hidden // self.heads * self.kv_heads


SHAPES = {
    "full": Shape(
        hidden=2048,
        layers=36,
        heads=16,
        kv_heads=2,
        intermediate=11008,
        vocabulary=151_936,
        first_special_id=151_643,
        mrope_section=(16, 24, 24),
        max_window_layers=70,
        vision_hidden=1280,
        vision_depth=32,
        vision_heads=16,
        vision_intermediate=3420,
        full_attention_blocks=(7, 15, 23, 31),
        projector_dim=128,
        matryoshka_dims=(128, 256, 512, 1024, 2048),
        lora_rank=32,
        lora_alpha=32,
    ),
    # A lookup and one small matrix for patches: what is left is everything but the model
    # (`benchmarks/null_model`). Hidden size and vectors are the real model's: their bytes are moved.
    "null": Shape(
        hidden=2048,
        layers=0,
        heads=16,
        kv_heads=2,
        intermediate=64,
        vocabulary=2048,
        first_special_id=2000,
        mrope_section=(16, 24, 24),
        max_window_layers=0,
        vision_hidden=64,
        vision_depth=0,
        vision_heads=2,
        vision_intermediate=64,
        full_attention_blocks=(),
        projector_dim=128,
        matryoshka_dims=(128, 256, 512, 1024, 2048),
        lora_rank=8,
        lora_alpha=8,
    ),
    "small": Shape(
        hidden=256,
        layers=4,
        heads=2,
        kv_heads=1,
        intermediate=704,
        vocabulary=2048,
        first_special_id=2000,
        mrope_section=(16, 24, 24),
        max_window_layers=4,
        vision_hidden=160,
        vision_depth=4,
        vision_heads=2,
        vision_intermediate=420,
        full_attention_blocks=(1, 3),
        projector_dim=128,
        matryoshka_dims=(64, 128, 256),
        lora_rank=16,
        lora_alpha=32,
    ),
    "mini": Shape(
        hidden=64,
        layers=3,
        heads=2,
        kv_heads=1,
        intermediate=160,
        vocabulary=1024,
        first_special_id=1010,
        mrope_section=(4, 6, 6),
        max_window_layers=2,
        vision_hidden=64,
        vision_depth=4,
        vision_heads=2,
        vision_intermediate=96,
        full_attention_blocks=(1, 3),
        projector_dim=32,
        matryoshka_dims=(8, 16, 32, 64),
        lora_rank=8,
        lora_alpha=16,
    ),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor before it exists: `mean + std * normal` in this shape."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    @property
    def num_values(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)


def _matrix(name: str, rows: int, columns: int) -> Planned:
    return Planned(f"{name}.weight", (rows, columns), GAIN / math.sqrt(columns))


def _linear(name: str, rows: int, columns: int) -> tuple[Planned, Planned]:
    return _matrix(name, rows, columns), Planned(f"{name}.bias", (rows,), BIAS_STD)


def _norm(name: str, size: int) -> Planned:
    return Planned(f"{name}.weight", (size,), NORM_STD, mean=1.0)


def _adapted(shape: Shape) -> tuple[tuple[str, int, int], ...]:
    """Name, rows and columns of what the adapters touch in one layer."""
    return (
        ("self_attn.q_proj", shape.hidden, shape.hidden),
        ("self_attn.k_proj", shape.kv_hidden, shape.hidden),
        ("self_attn.v_proj", shape.kv_hidden, shape.hidden),
        ("self_attn.o_proj", shape.hidden, shape.hidden),
        ("mlp.gate_proj", shape.intermediate, shape.hidden),
        ("mlp.up_proj", shape.intermediate, shape.hidden),
        ("mlp.down_proj", shape.hidden, shape.intermediate),
    )


def plan_vision(shape: Shape) -> Iterator[Planned]:
    """The vision tower, under its old-style names."""
    size, inner = shape.vision_hidden, shape.vision_intermediate
    fan_in = 3 * 2 * 14 * 14
    yield Planned("visual.patch_embed.proj.weight", (size, 3, 2, 14, 14), GAIN / math.sqrt(fan_in))
    for block in range(shape.vision_depth):
        prefix = f"visual.blocks.{block}"
        yield _norm(f"{prefix}.norm1", size)
        yield _norm(f"{prefix}.norm2", size)
        yield from _linear(f"{prefix}.attn.qkv", 3 * size, size)
        yield from _linear(f"{prefix}.attn.proj", size, size)
        yield from _linear(f"{prefix}.mlp.gate_proj", inner, size)
        yield from _linear(f"{prefix}.mlp.up_proj", inner, size)
        yield from _linear(f"{prefix}.mlp.down_proj", size, inner)
    yield _norm("visual.merger.ln_q", size)
    yield from _linear("visual.merger.mlp.0", 4 * size, 4 * size)
    yield from _linear("visual.merger.mlp.2", shape.hidden, 4 * size)


def plan_text(shape: Shape) -> Iterator[Planned]:
    """The language model, under its old-style names; the head is tied and not stored."""
    yield Planned("model.embed_tokens.weight", (shape.vocabulary, shape.hidden), EMBEDDING_STD)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield _norm(f"{prefix}.input_layernorm", shape.hidden)
        yield _norm(f"{prefix}.post_attention_layernorm", shape.hidden)
        for name, rows, columns in _adapted(shape):
            has_bias = name[-6:] in ("q_proj", "k_proj", "v_proj")
            full_name = f"{prefix}.{name}"
            yield from (
                _linear(full_name, rows, columns)
                if has_bias
                else [_matrix(full_name, rows, columns)]
            )
    yield _norm("model.norm", shape.hidden)


def plan_projector(shape: Shape) -> Iterator[Planned]:
    """The multi-vector projector."""
    yield from _linear("multi_vector_projector", shape.projector_dim, shape.hidden)


def plan_adapters(shape: Shape) -> Iterator[Planned]:
    """All tasks' LoRA factors, under their new-style names."""
    targets = [
        (f"model.language_model.layers.{layer}.{name}", rows, columns)
        for layer in range(shape.layers)
        for name, rows, columns in _adapted(shape)
    ]
    targets.append(("multi_vector_projector", shape.projector_dim, shape.hidden))
    rank = shape.lora_rank
    for name, rows, columns in targets:
        for task in TASKS:
            prefix = f"base_model.model.{name}"
            yield _matrix(f"{prefix}.lora_A.{task}", rank, columns)
            # Half the gain, so that an adapter moves its weight by a visible fraction.
            yield Planned(
                f"{prefix}.lora_B.{task}.weight", (rows, rank), GAIN / 2 / math.sqrt(rank)
            )


def split(plan: Sequence[Planned], num_shards: int) -> list[list[Planned]]:
    """Neighbouring tensors in `num_shards` runs of about the same size, none empty."""
    if not 1 <= num_shards <= len(plan):
        raise ValueError(
            f"A checkpoint of {len(plan)} tensors has 1..{len(plan)} shards, got {num_shards}."
        )
    total = sum(planned.num_values for planned in plan)
    shards: list[list[Planned]] = [[]]
    done = 0
    for index, planned in enumerate(plan):
        missing = num_shards - len(shards)
        due = done * num_shards >= total * len(shards) or len(plan) - index == missing
        if shards[-1] and missing and due:
            shards.append([])
        shards[-1].append(planned)
        done += planned.num_values
    return shards
