"""Pictures as the patches that the vision tower takes, many at a time and normalised.

The same pixels as the serving path gives (a test holds the two together); here for batches of pictures of one size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from mini.model.shapes import PATCH

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_MERGE = 2


def pixels_of(images: Sequence[Image.Image], side: int) -> Tensor:
    """RGB pictures of one size, resized to `side` x `side`: uint8 [image, channel, row, column]."""
    stacked = np.stack([np.asarray(image) for image in images])
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2)
    if pixels.shape[2:] == (side, side):
        return pixels.contiguous()
    return interpolate(
        pixels, (side, side), mode="bicubic", align_corners=False, antialias=True
    ).contiguous()


def patches_of(pixels: Tensor) -> Tensor:
    """Normalised patches, the four of an image token next to each other.

    Args:
        pixels: uint8 [image, channel, row, column], sides of whole image tokens.

    Returns:
        float32 [image, patch, value]; a value is channel, row, column of one frame.
    """
    images, channels, height, width = pixels.shape
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    values = (pixels.float() / 255 - mean) / std
    cut = values.view(
        images,
        channels,
        height // PATCH // _MERGE,
        _MERGE,
        PATCH,
        width // PATCH // _MERGE,
        _MERGE,
        PATCH,
    )
    return cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(images, -1, channels * PATCH * PATCH)
