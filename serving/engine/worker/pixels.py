"""Normalising pixels on a CPU: the arithmetic of vLLM's own module, a few patches at a time."""

import torch
from torch import Tensor, nn

_BLOCK_PATCHES = 128
"""600 KB of float32 for the model's patches of 1176 values: stays in a core's cache."""


class BlockwiseNorm(nn.Module):
    """`x * weight + bias` for each channel in float32, rounded once: the bits of `whole`.

    Over a whole page, intermediates are 14 MB each of fresh memory, and a product of bytes and float32
    converts value by value. Together that took a CPU half of what a page costs beside the model's layers.

    Args:
        whole: vLLM's `FusedMMInputNorm`.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    @property
    def input_dtype(self) -> torch.dtype | None:
        """What vLLM is to send."""
        dtype = self.whole.input_dtype
        assert dtype is None or isinstance(dtype, torch.dtype)
        return dtype

    def forward(self, pixel_values: Tensor, visual_dtype: torch.dtype) -> Tensor:
        """Normalise uint8 [patch, channel * value] into `visual_dtype`, in the same shape."""
        weight, bias = (self.whole.get_buffer(name).view(1, -1, 1) for name in ("weight", "bias"))
        normed = torch.empty(pixel_values.shape, dtype=visual_dtype, device=pixel_values.device)
        for start in range(0, len(pixel_values), _BLOCK_PATCHES):
            block = pixel_values[start : start + _BLOCK_PATCHES]
            values = block.to(torch.float32).view(len(block), weight.shape[1], -1)
            normed[start : start + len(block)] = values.mul_(weight).add_(bias).view(block.shape)
        return normed
