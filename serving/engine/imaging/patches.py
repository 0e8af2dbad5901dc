"""An image as the patches that the model's vision tower takes, before normalisation.

The pixels of transformers' own image processor, bit for bit, with its resizing and without its detours:
no copy of what is RGB already, no float32, and pixels moved by numpy, since torch's threads cost more here than
they save. The engine normalises on its device. Knows no vLLM.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nanoarrow import c_array
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.dlpack import from_dlpack

from serving.images import smart_resize
from serving.manifest import ImageSpec

# A still image is two equal frames.
_FRAMES = 2
_CHANNELS = 3

# Pillow takes blocks of whole memory pages. A block is only as large as the image needs.
_BLOCK_UNIT = 4096
_MAX_BLOCK_BYTES = 1 << 30

# What `cut` does, in the words of a processor's config; where one is silent, it means the same.
_EXPECTED = {
    "do_resize": True,
    "do_convert_rgb": True,
    "resample": 3,
    "temporal_patch_size": _FRAMES,
}


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of one image, by rows and columns."""

    rows: int
    columns: int

    @property
    def num_patches(self) -> int:
        """All of them."""
        return self.rows * self.columns

    def num_tokens(self, spec: ImageSpec) -> int:
        """Image tokens, each of a square of patches."""
        return self.num_patches // spec.merge_size**2


@dataclass(frozen=True, slots=True)
class Patches:
    """One image.

    Attributes:
        values: uint8 [patch, value], the patches of one image token next to each other; a value is
            channel, frame, row, column.
        grid: where they were.
    """

    values: Tensor
    grid: Grid


def can_cut(checkpoint: Path, spec: ImageSpec) -> bool:
    """Whether the checkpoint's processor does what `cut` does; a file that cannot be read says no."""
    expected = _EXPECTED | {"patch_size": spec.patch_size, "merge_size": spec.merge_size}
    try:
        config = _processor_config(checkpoint)
        return all(config.get(name, value) == value for name, value in expected.items())
    except (OSError, ValueError, AttributeError):
        return False


def _processor_config(checkpoint: Path) -> Any:
    """As transformers finds it: version 5 keeps all of a model's processors in one file."""
    shared = checkpoint / "processor_config.json"
    if shared.exists():
        processors = json.loads(shared.read_text(encoding="utf-8"))
        if "image_processor" in processors:
            return processors["image_processor"]
    return json.loads((checkpoint / "preprocessor_config.json").read_text(encoding="utf-8"))


def values_of_patch(spec: ImageSpec) -> int:
    """Bytes of one patch."""
    return _CHANNELS * _FRAMES * spec.patch_size**2


def grid_of(width: int, height: int, *, min_pixels: int, max_pixels: int, spec: ImageSpec) -> Grid:
    """The patches of an image of `width` x `height` pixels: the model's own smart resize."""
    rows, columns = smart_resize(
        width, height, edge=spec.token_edge, min_pixels=min_pixels, max_pixels=max_pixels
    )
    return Grid(rows // spec.patch_size, columns // spec.patch_size)


def cut(
    image: Image.Image,
    grid: Grid,
    spec: ImageSpec,
    out: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]",
) -> None:
    """Resize an RGB `image` to `grid`, and write its patches to `out`, uint8 [patch, value].

    Source: Qwen2VLImageProcessor of transformers (resize, patchify), and what torchvision calls to resize
    bytes on a CPU; torchvision itself takes seconds to import in every process that prepares images.
    """
    edge, merge = spec.patch_size, spec.merge_size
    height, width = grid.rows * edge, grid.columns * edge
    pixels = _pixels_of(image)
    if pixels.shape[1:] != (height, width):
        pixels = interpolate(
            pixels.unsqueeze(0),
            (height, width),
            mode="bicubic",
            align_corners=False,
            antialias=True,
        )[0]
    by_token = (
        pixels[:_CHANNELS]
        .numpy()
        .reshape(_CHANNELS, grid.rows // merge, merge, edge, grid.columns // merge, merge, edge)
    )
    patches = by_token.transpose(1, 4, 2, 5, 0, 3, 6)
    frames = out.reshape(*patches.shape[:5], _FRAMES, edge, edge)
    frames[...] = patches[:, :, :, :, :, np.newaxis]


def _pixels_of(image: Image.Image) -> Tensor:
    """uint8 [channel, row, column] of an RGB `image`: Pillow's own memory where it lies in one piece.

    There a pixel has a fourth byte, hence a fourth channel, which is resized beside the others without touching them.
    Copied, a page of 1700 x 2200 pixels takes longer than its resizing.
    """
    try:
        pixels = c_array(image).view().child(0).buffer(1)
    except ValueError:
        # A large image, in several blocks (see `keep_whole`).
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return from_dlpack(pixels).view(image.height, image.width, -1).permute(2, 0, 1)


def keep_whole(max_pixels: int) -> None:
    """Let Pillow keep images of up to `max_pixels` in one block each, for all of this process; its own are 16 MB."""
    num_bytes = min(4 * max_pixels, _MAX_BLOCK_BYTES)
    size = math.ceil(num_bytes / _BLOCK_UNIT) * _BLOCK_UNIT
    Image.core.set_block_size(size)  # type: ignore[attr-defined] # documented, and not exported


def patches_of(image: Image.Image, grid: Grid, spec: ImageSpec) -> Patches:
    """`cut` into memory of its own."""
    out = np.empty((grid.num_patches, values_of_patch(spec)), dtype=np.uint8)
    cut(image, grid, spec, out)
    return Patches(torch.from_numpy(out), grid)
