"""Floating-point operations of one forward pass, from a checkpoint's config alone.

Multiply and add count as two. Counted are the matrix products of the layers and of attention; norms,
activations and rotary embeddings, under one in a hundred, are not. Sources: the shapes of Qwen2.5-VL as
its config.json gives them; attention as in Kaplan et al., arXiv:2001.08361, table 1, without the causal
half.
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Flops:
    """What one token and one patch cost, apart from attention over others."""

    per_token: int
    per_token_pair: int
    per_patch: int
    per_patch_pair_in_window: int
    patches_per_window: int
    num_full_blocks: int
    num_window_blocks: int

    def text(self, num_tokens: int) -> int:
        """Operations of one text."""
        return num_tokens * self.per_token + num_tokens**2 * self.per_token_pair // 2

    def image(self, num_tokens: int, num_image_tokens: int) -> int:
        """Operations of one image of `num_image_tokens`, in a prompt of `num_tokens`."""
        patches = 4 * num_image_tokens
        pair = self.per_patch_pair_in_window
        attention = (
            pair
            * patches
            * (
                self.num_full_blocks * patches
                + self.num_window_blocks * min(patches, self.patches_per_window)
            )
        )
        return self.text(num_tokens) + patches * self.per_patch + attention


def read_flops(checkpoint: Path) -> Flops:
    """Read `checkpoint/config.json`."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text, vision = config["text_config"], config["vision_config"]
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    head_dim = hidden // heads
    kv = 2 * text["num_key_value_heads"] * head_dim
    layer = hidden * (2 * hidden + kv) + 3 * hidden * text["intermediate_size"]
    layers = text["num_hidden_layers"]
    width, depth = vision["hidden_size"], vision["depth"]
    block = 4 * width * width + 3 * width * vision["intermediate_size"]
    merged = 4 * width
    merger = (merged * merged + merged * vision["out_hidden_size"]) // 4
    patch = 2 * 3 * vision["patch_size"] ** 2 * width
    full = len(vision["fullatt_block_indexes"])
    return Flops(
        per_token=2 * layers * layer,
        per_token_pair=4 * layers * hidden,
        per_patch=2 * (depth * block + merger + patch),
        per_patch_pair_in_window=4 * width,
        patches_per_window=(vision["window_size"] // vision["patch_size"]) ** 2,
        num_full_blocks=full,
        num_window_blocks=depth - full,
    )
