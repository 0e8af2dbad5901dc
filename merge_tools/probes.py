"""The inputs on which merged and unmerged models are compared: a few texts and made-up images.

Deliberately knows no model; the checkpoint's own processor turns them into tensors.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from merge_tools.manifest import Manifest

__all__ = ["Inputs", "probe_inputs"]

Inputs = Mapping[str, Tensor]

_TEXTS = (
    "Overview of climate change impacts on coastal cities",
    "海滩上美丽的日落",
    "def hello_world():\n    print('Hello, World!')",
    "a",
)
# (width, height); one square, one wide, one smaller than a patch group.
_IMAGE_SIZES = ((112, 112), (196, 84), (30, 30))


def probe_inputs(checkpoint: Path, manifest: Manifest) -> Mapping[str, Inputs]:
    """The probes by name, as the model takes them, batched by one."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)  # type: ignore[no-untyped-call]
    prompt = manifest.prompts[manifest.default_prompt]
    inputs: dict[str, Inputs] = {}
    for number, text in enumerate(_TEXTS):
        inputs[f"text {number}"] = processor(text=[prompt + text], return_tensors="pt")
    for width, height in _IMAGE_SIZES:
        inputs[f"image {width}x{height}"] = processor(
            text=[manifest.image_prompt], images=[_image(width, height)], return_tensors="pt"
        )
    return inputs


def _image(width: int, height: int) -> Image.Image:
    """A gradient with noise: smooth and rough content in one picture, the same every time."""
    x = np.linspace(0, 255, width)[None, :, None]
    y = np.linspace(0, 255, height)[:, None, None]
    noise = np.random.default_rng(0).uniform(0, 64, (height, width, 3))
    pixels = (x * [0.5, 0.2, 0.1] + y * [0.1, 0.3, 0.5] + noise).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8), "RGB")
