"""Pixels on a CPU: normalised as by vLLM's own module, and their embeddings put where they belong, in fewer passes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_BLOCK_PATCHES = 128
"""600 KB of float32 for the model's patches of 1176 values: stays in a core's cache."""


class BlockwiseNorm(nn.Module):
    """`x * weight + bias` for each channel in float32, rounded once: the bits of `whole`.

    Over a whole page, intermediates are 14 MB each of fresh memory, and a product of bytes and float32
    converts value by value. Together that took a CPU half of what a page costs beside the model's layers. Here
    float32 comes to stand where it stays; in fresh blocks of its own it took twice as long.

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
        weight, bias = (self._of_each_value(name, pixel_values) for name in ("weight", "bias"))
        normed = pixel_values.new_empty(pixel_values.shape, dtype=visual_dtype)
        # One block's memory for all, where the result is of another type.
        scratch = pixel_values.new_empty(
            (min(_BLOCK_PATCHES, len(pixel_values)), pixel_values.shape[1]), dtype=torch.float32
        )
        for start in range(0, len(pixel_values), _BLOCK_PATCHES):
            block = pixel_values[start : start + _BLOCK_PATCHES]
            there = normed[start : start + len(block)]
            values = there if visual_dtype == torch.float32 else scratch[: len(block)]
            values.copy_(block).mul_(weight).add_(bias)
            if values is not there:
                there.copy_(values)
        return normed

    def _of_each_value(self, name: str, pixel_values: Tensor) -> Tensor:
        """A buffer of `whole` [channel], repeated for each value of a patch."""
        of_channels = self.whole.get_buffer(name)
        return of_channels.repeat_interleave(pixel_values.shape[1] // len(of_channels))


def put_in_places(rows: Tensor, images: Sequence[Tensor], is_image: Tensor) -> Tensor:
    """Overwrite `rows` [token, hidden] where `is_image` [token] is true, with the rows of `images` in order.

    Raises:
        ValueError: there are not as many places as rows of images.
    """
    places = is_image.nonzero().flatten()
    num_rows = sum(map(len, images))
    if len(places) != num_rows:
        raise ValueError(f"{num_rows} rows of images for {len(places)} places.")
    start = 0
    for image in images:
        at = places[start : start + len(image)]
        start += len(image)
        if len(image) and int(at[-1] - at[0]) == len(image) - 1:
            rows[int(at[0]) : int(at[-1]) + 1] = image
        else:
            rows[at] = image.to(rows.dtype)
    return rows
