"""Drawn in one process, learned from in another, and each batch more than once.

Drawing a picture costs about as much as a step over it, so what was drawn is kept for a while and sampled again.
"""

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

Batch_co = TypeVar("Batch_co", covariant=True)
Batch = TypeVar("Batch")


class Drawer(Protocol[Batch_co]):
    """Draws one batch; a dataclass of tensors whose first dimension is the batch."""

    def __call__(self, rng: random.Random) -> Batch_co:
        """The next batch."""
        ...


class _Stream(IterableDataset[object]):
    def __init__(self, draw: Drawer[object], seed: int) -> None:
        self._draw, self._seed = draw, seed

    def __iter__(self) -> Iterator[object]:
        rng = random.Random(self._seed)
        torch.set_num_threads(1)
        while True:
            yield self._draw(rng)


def _asis(batch: object) -> object:
    return batch


def batches(draw: Drawer[Batch], *, seed: int, keep: int, reuse: int) -> Iterator[Batch]:
    """Batches without end: `reuse` for each one drawn, mixed from the last `keep`.

    Args:
        draw: makes a dataclass whose tensors have one row an example.
        seed: of all that is drawn and mixed.
        keep: batches that are kept to mix from.
        reuse: how often an example is seen, on average.
    """
    loader = DataLoader(
        _Stream(draw, seed), batch_size=None, num_workers=1, prefetch_factor=8, collate_fn=_asis
    )
    kept: list[Batch] = []
    mixer = torch.Generator().manual_seed(seed)
    for number, fresh in enumerate(loader):
        if len(kept) < keep:
            kept.append(fresh)
        else:
            kept[number % keep] = fresh
        for _ in range(reuse):
            yield _mixed(kept, mixer)


def _mixed(kept: list[Batch], mixer: torch.Generator) -> Batch:
    first = kept[0]
    sizes = len(getattr(first, fields(first)[0].name))  # type: ignore[arg-type]
    which = torch.randint(len(kept), (sizes,), generator=mixer).tolist()
    row = torch.randint(sizes, (sizes,), generator=mixer).tolist()
    changed: dict[str, Tensor] = {
        field.name: torch.stack(
            [getattr(kept[batch], field.name)[at] for batch, at in zip(which, row, strict=True)]
        )
        for field in fields(first)  # type: ignore[arg-type]
    }
    return replace(first, **changed)  # type: ignore[type-var]
