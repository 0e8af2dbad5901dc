"""Inputs that are a text, a page or both: in groups that fit in memory, and fused where they are both.

Knows containers alone; not where they come from, nor which model embeds them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.source import Item

Pair = tuple[str | None, Item | None]
"""The text and the page of one input; at least one of them is there."""

_TEXTS_AT_ONCE = 1024
_IMAGES_AT_ONCE = 32
"""Decoded pages in memory at once."""

V = TypeVar("V")


def embedded(
    pairs: Iterable[Pair], embed: Callable[[Sequence[Item]], Sequence[V]]
) -> Iterator[list[V]]:
    """What `embed` makes of each input's parts, text before page, in order."""
    for group in _grouped(pairs):
        texts = [text for text, _ in group if text is not None]
        images = [image for _, image in group if image is not None]
        of_texts = iter(embed(texts) if texts else [])
        of_images = iter(embed(images) if images else [])
        for text, image in group:
            parts = [next(of_texts)] if text is not None else []
            parts += [next(of_images)] if image is not None else []
            yield parts


def fused(parts: Sequence[Tensor]) -> Tensor:
    """One input's vector: its only one, else the normalised sum of single vectors, all tokens of multi-vectors.

    As the model's definition in mteb fuses them (`jina_models.py`).
    """
    if len(parts) == 1:
        return parts[0]
    if parts[0].ndim == 2:
        return torch.cat(list(parts))
    return functional.normalize(torch.stack(list(parts)).sum(dim=0), dim=-1)


def _grouped(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Runs of inputs that keep an engine busy and whose pages fit in memory."""
    group: list[Pair] = []
    num_images = 0
    for pair in pairs:
        group.append(pair)
        num_images += pair[1] is not None
        if num_images == _IMAGES_AT_ONCE or len(group) == _TEXTS_AT_ONCE:
            yield group
            group, num_images = [], 0
    if group:
        yield group
