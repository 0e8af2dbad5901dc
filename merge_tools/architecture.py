"""The tensors that a Qwen2.5-VL of given sizes consists of.

Names are in the canonical spelling. Written down here rather than read from an instantiated model,
because importing transformers and building the model would cost more memory than the whole merge.
Deliberately knows no file and no adapter.
"""

from collections.abc import Mapping

from merge_tools.base_config import BaseConfig, TextSizes, VisionSizes
from merge_tools.names import PROJECTOR

__all__ = [
    "LM_HEAD",
    "expected_tensors",
    "is_convolution",
    "is_embedding",
    "is_linear",
    "is_projector",
]

LM_HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
CONVOLUTION = "model.visual.patch_embed.proj.weight"

Shape = tuple[int, ...]


def expected_tensors(config: BaseConfig) -> Mapping[str, Shape]:
    """Name and shape of every tensor that config.json demands; lm_head only when it is not tied."""
    shapes = _text_tensors(config.text) | _vision_tensors(config.vision)
    if not config.tied:
        shapes[LM_HEAD] = (config.text.vocabulary, config.text.hidden)
    return shapes


def is_linear(name: str, shape: Shape) -> bool:
    """Whether the tensor is the weight of an nn.Linear, which LoRA adapts."""
    return name.endswith(".weight") and len(shape) == 2 and not is_embedding(name)


def is_embedding(name: str) -> bool:
    """Whether the tensor is the token embedding."""
    return name == EMBEDDING


def is_convolution(name: str) -> bool:
    """Whether the tensor is the patch embedding's kernel."""
    return name == CONVOLUTION


def _text_tensors(text: TextSizes) -> dict[str, Shape]:
    prefix = "model.language_model"
    head = text.hidden // text.num_heads
    shapes: dict[str, Shape] = {
        EMBEDDING: (text.vocabulary, text.hidden),
        f"{prefix}.norm.weight": (text.hidden,),
    }
    outputs = {"q": text.num_heads * head, "k": text.num_kv_heads * head}
    outputs["v"] = outputs["k"]
    for index in range(text.num_layers):
        layer = f"{prefix}.layers.{index}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (text.hidden,)
        for letter, size in outputs.items():
            shapes[f"{layer}.self_attn.{letter}_proj.weight"] = (size, text.hidden)
            shapes[f"{layer}.self_attn.{letter}_proj.bias"] = (size,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (text.hidden, outputs["q"])
        shapes[f"{layer}.mlp.gate_proj.weight"] = (text.intermediate, text.hidden)
        shapes[f"{layer}.mlp.up_proj.weight"] = (text.intermediate, text.hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (text.hidden, text.intermediate)
    return shapes


def _vision_tensors(vision: VisionSizes) -> dict[str, Shape]:
    prefix = "model.visual"
    kernel = (vision.in_channels, vision.temporal_patch, vision.patch, vision.patch)
    merged = vision.hidden * vision.spatial_merge**2
    shapes: dict[str, Shape] = {
        CONVOLUTION: (vision.hidden, *kernel),
        f"{prefix}.merger.ln_q.weight": (vision.hidden,),
    }
    _add_linear(shapes, f"{prefix}.merger.mlp.0", merged, merged)
    _add_linear(shapes, f"{prefix}.merger.mlp.2", vision.out_hidden, merged)
    for index in range(vision.depth):
        block = f"{prefix}.blocks.{index}"
        for norm in ("norm1", "norm2"):
            shapes[f"{block}.{norm}.weight"] = (vision.hidden,)
        _add_linear(shapes, f"{block}.attn.qkv", 3 * vision.hidden, vision.hidden)
        _add_linear(shapes, f"{block}.attn.proj", vision.hidden, vision.hidden)
        _add_linear(shapes, f"{block}.mlp.gate_proj", vision.intermediate, vision.hidden)
        _add_linear(shapes, f"{block}.mlp.up_proj", vision.intermediate, vision.hidden)
        _add_linear(shapes, f"{block}.mlp.down_proj", vision.hidden, vision.intermediate)
    return shapes


def _add_linear(shapes: dict[str, Shape], module: str, num_out: int, num_in: int) -> None:
    shapes[f"{module}.weight"] = (num_out, num_in)
    shapes[f"{module}.bias"] = (num_out,)


def is_projector(name: str) -> bool:
    """Whether the tensor belongs to the multi-vector projector, which no Qwen2.5-VL has."""
    return name in (f"{PROJECTOR}.weight", f"{PROJECTOR}.bias")
