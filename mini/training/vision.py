"""The vision tower of transformers, run on batches of pictures of one size.

transformers packs pictures into one long sequence and attends window by window in a loop; with pictures of one
size every window is a row of a batch. The weights are the module's own, and a test holds the results together.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel as VisionTower,
)

_MERGE = 4
"""Patches of an image token."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """Where each patch goes so that windows are contiguous: order of image tokens, and its inverse."""

    order: Tensor
    back: Tensor
    length: int


@cache
def _windows(rows: int, columns: int, cells: int) -> _Windows:
    """Windows of `cells` x `cells` image tokens over `rows` x `columns` of them."""
    if rows % cells or columns % cells:
        raise ValueError(
            f"A picture has {rows} x {columns} image tokens, expected whole windows of {cells}."
        )
    grid = torch.arange(rows * columns).view(rows // cells, cells, columns // cells, cells)
    order = grid.permute(0, 2, 1, 3).reshape(-1)
    return _Windows(order, order.argsort(), cells * cells * _MERGE)


def _rotations(tower: VisionTower, rows: int, columns: int, order: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [patch, 1, dim of a head] for the patches in their windows' order."""
    at_row = torch.arange(2 * rows).view(rows, 1, 2, 1).expand(rows, columns, 2, 2)
    at_column = torch.arange(2 * columns).view(1, columns, 1, 2).expand(rows, columns, 2, 2)
    places = torch.stack([at_row.reshape(-1, _MERGE), at_column.reshape(-1, _MERGE)])[:, order]
    angles = places.reshape(2, -1, 1).float() * tower.rotary_pos_emb.inv_freq.float()
    both = torch.cat([angles[0], angles[1]], dim=-1)
    whole = torch.cat([both, both], dim=-1).unsqueeze(1)
    return whole.cos(), whole.sin()


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def _attend(
    attention: Any, states: Tensor, length: int, cos: Tensor, sin: Tensor, heads: int
) -> Tensor:
    images, patches, hidden = states.shape
    qkv = attention.qkv(states).view(images, patches, 3, heads, -1)
    query, key, value = qkv.unbind(2)
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    windows = [
        part.to(value.dtype).reshape(-1, length, heads, part.shape[-1]).transpose(1, 2)
        for part in (query, key, value)
    ]
    attended = scaled_dot_product_attention(windows[0], windows[1], windows[2])
    projected: Tensor = attention.proj(attended.transpose(1, 2).reshape(images, patches, hidden))
    return projected


def see(tower: VisionTower, patches: Tensor, rows: int, columns: int) -> Tensor:
    """What the tower sees in each image token.

    Args:
        tower: the module of transformers.
        patches: [image, patch, value] of one frame; a still picture is two equal ones.
        rows: image tokens of a picture from top to bottom; whole windows.
        columns: and from left to right.

    Returns:
        [image, image token, hidden size of the text], tokens in reading order.
    """
    config: Any = tower.config
    windows = _windows(rows, columns, config.window_size // config.patch_size // 2)
    images, count, values = patches.shape
    cos, sin = _rotations(tower, rows, columns, windows.order)
    blocks: Any = tower.blocks
    weight = tower.patch_embed.proj.weight.sum(dim=2).flatten(1)
    ordered = patches.view(images, -1, _MERGE, values)[:, windows.order].view(images, count, values)
    states = linear(ordered, weight)
    for at, block in enumerate(blocks):
        length = count if at in config.fullatt_block_indexes else windows.length
        states = states + _attend(
            block.attn, block.norm1(states), length, cos, sin, config.num_heads
        )
        normed = block.norm2(states)
        mlp = block.mlp
        states = states + mlp.down_proj(silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
    merged: Tensor = tower.merger(states).view(images, -1, config.out_hidden_size)
    return merged[:, windows.back]
