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


def page_grid(checkpoint: Path) -> tuple[int, int]:
    """Rows and columns of image tokens that this model makes of a page of the workloads."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    settings = _read(checkpoint / "preprocessor_config.json")
    token = settings["patch_size"] * settings["merge_size"]
    width, height = PAGE_SIZE
    # The reference's own arithmetic, with the bounds that the model was merged with.
    pixels: tuple[int, int] = smart_resize(
        height, width, token, settings["min_pixels"], settings["max_pixels"]
    )
    return pixels[0] // token, pixels[1] // token


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


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
