"""Reused, page-aligned memory for reading, computing and writing.

A fresh 90 MB temporary for each tensor costs more in page faults than the arithmetic on it.
Deliberately knows no file.
"""

import mmap

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

__all__ = ["Buffer", "allocate", "bytes_of"]

HUGE_BYTES_MIN = 4 << 20

Buffer = UInt8[Tensor, " byte"]


def allocate(num_bytes: int) -> Buffer:
    """Page-aligned zeroed memory; anonymous, so untouched pages take no room."""
    memory = mmap.mmap(-1, max(num_bytes, mmap.PAGESIZE))
    if num_bytes >= HUGE_BYTES_MIN:
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def bytes_of(values: Shaped[Tensor, " element"]) -> memoryview:
    """The memory of a contiguous tensor, shared, for hashing and system calls."""
    return values.view(torch.uint8).numpy().data
