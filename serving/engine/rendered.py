"""A prompt in the form that vLLM's engine takes, made without its renderer. Importing this imports vLLM."""

import itertools
from typing import Any

import torch
from vllm.inputs import tokens_input
from vllm.inputs.engine import EngineInput, mm_input
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from serving.engine.imaging.patches import Patches
from serving.engine.protocol import ImagePrompt, TextPrompt
from serving.manifest import Manifest

_names = itertools.count()


def rendered_text(prompt: TextPrompt) -> EngineInput:
    """The prompt as it is."""
    return tokens_input(list(prompt.token_ids))


def rendered_image(prompt: ImagePrompt, patches: Patches, manifest: Manifest) -> EngineInput:
    """The template with its image tokens, and the patches that become them."""
    grid = patches.grid
    num_tokens = grid.num_tokens(manifest.image)
    image_pad = manifest.special_token_ids.image_pad
    at = prompt.token_ids.index(image_pad)
    fields: Any = {
        "pixel_values": patches.values,
        "image_grid_thw": torch.tensor([[1, grid.rows, grid.columns]]),
    }
    return mm_input(
        prompt.expanded(image_pad, num_tokens),
        MultiModalKwargsItems.from_hf_inputs(
            fields,
            {
                "pixel_values": MultiModalFieldConfig.flat_from_sizes(
                    "image", torch.tensor([grid.num_patches])
                ),
                "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            },
        ),
        # vLLM computes what has one name once, and pages do not repeat.
        {"image": [f"polyvec-{next(_names)}"]},
        {"image": [PlaceholderRange(offset=at, length=num_tokens)]},
    )
