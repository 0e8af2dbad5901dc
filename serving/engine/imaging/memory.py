"""Memory that several processes see, in slots of one size.

Anonymous, so that nothing of it is left when the processes are gone, and not in /dev/shm, which
containers keep as small as 64 MB. What nobody has written to takes no memory.
"""

import mmap
import os
import weakref
from typing import Self

import numpy as np

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class SharedSlots:
    """Slots 0, 1, ..., of `slot_bytes` each.

    Args:
        descriptor: of a file that is large enough; it is closed when this object goes, not before, so
            that its path stays true.
        slot_bytes: of each slot.
    """

    def __init__(self, descriptor: int, slot_bytes: int) -> None:
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self._slot_bytes = slot_bytes
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    @classmethod
    def create(cls, num_slots: int, slot_bytes: int) -> Self:
        """New memory, all zeros."""
        descriptor = os.memfd_create("polyvec-images", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, num_slots * slot_bytes)
        return cls(descriptor, slot_bytes)

    @classmethod
    def open(cls, path: str, slot_bytes: int) -> Self:
        """Another process's memory, by its `path`."""
        return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC), slot_bytes)

    @property
    def path(self) -> str:
        """Where processes of the same user find this memory, as long as this one lives."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def view(self, slot: int, num_bytes: int) -> Bytes:
        """The first `num_bytes` of `slot`; keeps the memory mapped as long as it lives."""
        assert num_bytes <= self._slot_bytes
        return np.frombuffer(self._map, np.uint8, num_bytes, slot * self._slot_bytes)
