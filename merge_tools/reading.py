"""Positioned reads of parts of stored tensors into reused buffers.

Not mmap: mapped pages count as resident, so a mapped 7.5 GB model makes a 7.5 GB process. Pages
that are not in the page cache are read past it where the file system can, which is faster and
leaves the cache to others. Deliberately knows no adapter and no output.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from types import TracebackType

from jaxtyping import Float
from torch import Tensor

from merge_tools.buffers import Buffer, allocate, bytes_of
from merge_tools.direct import open_direct
from merge_tools.errors import CorruptShard
from merge_tools.shards import StoredTensor

__all__ = ["Reader", "values_of"]

PAGE_BYTES = mmap.PAGESIZE
# Reads past the page cache pay off only from here on.
DIRECT_BYTES_MIN = 1 << 20


class Reader(AbstractContextManager["Reader"]):
    """Open files, shared by all workers; every read names its own position."""

    def __init__(self) -> None:
        self._cached: dict[Path, int] = {}
        self._direct: dict[Path, int | None] = {}
        self._lock = Lock()

    @staticmethod
    def buffer_bytes(num_bytes: int) -> int:
        """The buffer that a read of so many bytes needs, aligned reads included."""
        return num_bytes + 2 * PAGE_BYTES

    def read(
        self, tensor: StoredTensor, first: int, count: int, buffer: Buffer
    ) -> Float[Tensor, " element"]:
        """Elements `first` to `first + count` of a tensor, as a view into `buffer`.

        Raises:
            CorruptShard: the file has become shorter, or the disk failed.
        """
        size = tensor.dtype.num_bytes
        offset, num_bytes = tensor.offset + first * size, count * size
        try:
            start = self._read(tensor.path, offset, num_bytes, buffer, size)
        except OSError as cause:
            raise CorruptShard(
                f"{tensor.path} cannot be read at byte {offset}: {cause.strerror}."
            ) from cause
        return buffer[start : start + num_bytes].view(tensor.dtype.torch)

    def _read(self, path: Path, offset: int, num_bytes: int, buffer: Buffer, size: int) -> int:
        """Reads, and returns where in the buffer the bytes begin."""
        memory = bytes_of(buffer)
        skew = offset % PAGE_BYTES
        direct = (
            self._direct_fd(path) if num_bytes >= DIRECT_BYTES_MIN and skew % size == 0 else None
        )
        if direct is not None and not self._is_cached(path, offset, num_bytes, memory):
            # A direct read covers whole pages; the file's last page may be cut short.
            wanted = skew + num_bytes
            target = memory[: -(-wanted // PAGE_BYTES) * PAGE_BYTES]
            try:
                got = os.preadv(direct, [target], offset - skew)
            except OSError as cause:
                if cause.errno != errno.EINVAL:
                    raise
                got = 0
            if got >= wanted:
                return skew
        self._read_cached(path, offset, memory[:num_bytes])
        return 0

    def _is_cached(self, path: Path, offset: int, num_bytes: int, memory: memoryview) -> bool:
        """Whether the range's first and last pages are in the page cache."""
        fd = self._fd(path)
        for position in (offset, offset + num_bytes - 1):
            try:
                os.preadv(fd, [memory[:1]], position, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True  # the file system cannot tell, so take the ordinary way
        return True

    def _read_cached(self, path: Path, offset: int, target: memoryview) -> None:
        fd = self._fd(path)
        done = 0
        while done < len(target):
            got = os.preadv(fd, [target[done:]], offset + done)
            if got == 0:
                raise CorruptShard(
                    f"{path} ends at byte {offset + done}, expected {len(target) - done} more: it "
                    "has been changed since it was checked. Fetch it again."
                )
            done += got

    def _fd(self, path: Path) -> int:
        with self._lock:
            if path not in self._cached:
                self._cached[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return self._cached[path]

    def _direct_fd(self, path: Path) -> int | None:
        with self._lock:
            if path not in self._direct:
                self._direct[path] = open_direct(path, os.O_RDONLY)
            return self._direct[path]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fd in (*self._cached.values(), *self._direct.values()):
            if fd is not None:
                os.close(fd)
        self._cached.clear()
        self._direct.clear()


def values_of(reader: Reader, tensor: StoredTensor) -> Iterator[Float[Tensor, " element"]]:
    """A tensor's values, a megabyte or so at a time; each view dies with the next."""
    num_elements = 1 << 20
    buffer = allocate(Reader.buffer_bytes(num_elements * tensor.dtype.num_bytes))
    for first in range(0, tensor.num_elements, num_elements):
        count = min(num_elements, tensor.num_elements - first)
        yield reader.read(tensor, first, count, buffer)
