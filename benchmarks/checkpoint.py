"""What the peers read of a merged checkpoint: its config, its type and the multi-vector projector."""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.workloads import PAGE_SIZE, TEMPLATE_TOKENS, Workload


def text_config(checkpoint: Path) -> dict[str, Any]:
    """The language model's part of `config.json`."""
    config = _read(checkpoint / "config.json")
    text: dict[str, Any] = config.get("text_config", config)
    return text


def vision_config(checkpoint: Path) -> dict[str, Any]:
    """The vision tower's part of `config.json`."""
    vision: dict[str, Any] = _read(checkpoint / "config.json")["vision_config"]
    return vision


def dtype_name(checkpoint: Path) -> str:
    """The type of the weights, as torch calls it; vLLM's "auto" makes float16 of float32."""
    return str(_read(checkpoint / "config.json")["torch_dtype"])


def page_pixels(checkpoint: Path) -> tuple[int, int]:
    """Height and width to which this model reduces a page of the workloads."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    settings = _read(checkpoint / "preprocessor_config.json")
    # Processors that transformers 5 saved have the second names alone.
    size = settings.get("size", {})
    bounds = (
        settings.get("min_pixels") or size["shortest_edge"],
        settings.get("max_pixels") or size["longest_edge"],
    )
    width, height = PAGE_SIZE
    pixels: tuple[int, int] = smart_resize(height, width, _token_edge(settings), *bounds)
    return pixels


def page_grid(checkpoint: Path) -> tuple[int, int]:
    """Rows and columns of image tokens that this model makes of a page of the workloads."""
    edge = _token_edge(_read(checkpoint / "preprocessor_config.json"))
    height, width = page_pixels(checkpoint)
    return height // edge, width // edge


def item_tokens(checkpoint: Path, workload: Workload) -> int:
    """Tokens of one item as this model sees it, prefix or template included."""
    if not workload.is_page:
        return workload.num_tokens
    return math.prod(page_grid(checkpoint)) + TEMPLATE_TOKENS


def weight_bytes(checkpoint: Path) -> int:
    """Of all tensors of the model."""
    return int(_read(checkpoint / "model.safetensors.index.json")["metadata"]["total_size"])


def load_projector(checkpoint: Path) -> tuple[Tensor, Tensor]:
    """Weight [projected, hidden] and bias [projected], float32."""
    from safetensors.torch import load_file

    tensors = load_file(checkpoint / "multi_vector_projector.safetensors")
    return tensors["weight"].float(), tensors["bias"].float()


def _token_edge(settings: dict[str, Any]) -> int:
    """Pixels that an image token is wide and high."""
    return int(settings["patch_size"] * settings["merge_size"])


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
