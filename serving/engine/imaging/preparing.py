"""One image from its source to its patches; the same steps in a process of the pool and in a thread.

A process is set up once with what holds for all images, and told of each what it is and where its
patches go, so that pixels are never pickled.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from serving.allocator import keep_memory
from serving.engine.bounds import PromptBounds
from serving.engine.imaging.memory import SharedSlots
from serving.engine.imaging.patches import (
    Grid,
    Patches,
    cut,
    grid_of,
    keep_whole,
    patches_of,
    values_of_patch,
)
from serving.engine.protocol import ImagePrompt
from serving.images import ImageLimits, decode_image
from serving.inputs import ImageSource
from serving.manifest import ImageSpec


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every image of one engine."""

    spec: ImageSpec
    limits: ImageLimits
    bounds: PromptBounds


# What `set_up` has left in a process of the pool.
_here: "list[tuple[Rules, SharedSlots]]" = []


@dataclass(frozen=True, slots=True)
class Job:
    """One image; see `ImagePrompt`."""

    source: ImageSource
    min_pixels: int
    max_pixels: int
    template_tokens: int

    @classmethod
    def of(cls, prompt: ImagePrompt) -> "Job":
        """The image of `prompt`; a process of the pool may have another working directory."""
        source = prompt.source
        if isinstance(source, Path):
            source = source.absolute()
        return cls(source, prompt.min_pixels, prompt.max_pixels, len(prompt.token_ids))


def prepare(job: Job, rules: Rules) -> Patches:
    """Decode, check, resize and cut.

    Raises:
        InputError: the image cannot be decoded, or is too large for the engine.
    """
    image = decode_image(job.source, rules.limits)
    return patches_of(image, _checked_grid(job, rules, image.size), rules.spec)


def prepare_in_slot(job: Job, slot: int) -> Grid:
    """`prepare` in a process that `set_up` was called in, into its shared memory.

    Raises:
        InputError: see `prepare`.
    """
    rules, memory = _here[0]
    image = decode_image(job.source, rules.limits)
    grid = _checked_grid(job, rules, image.size)
    cut(image, grid, rules.spec, in_slot(memory, slot, grid, rules.spec))
    return grid


def in_slot(
    memory: SharedSlots, slot: int, grid: Grid, spec: ImageSpec
) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """Where the patches of `slot` lie, uint8 [patch, value]."""
    size = values_of_patch(spec)
    return memory.view(slot, grid.num_patches * size).reshape(grid.num_patches, size)


def set_up(rules: Rules, memory_path: str, slot_bytes: int) -> None:
    """Make this process ready for images."""
    torch.set_num_threads(1)
    keep_memory()
    keep_whole(rules.limits.max_decoded_pixels)
    _here.append((rules, SharedSlots.open(memory_path, slot_bytes)))


def _checked_grid(job: Job, rules: Rules, size: tuple[int, int]) -> Grid:
    spec = rules.spec
    grid = grid_of(*size, min_pixels=job.min_pixels, max_pixels=job.max_pixels, spec=spec)
    rules.bounds.check_image(grid.num_tokens(spec), job.template_tokens, job.max_pixels)
    return grid
