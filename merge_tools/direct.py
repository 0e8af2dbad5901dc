"""Input and output past the page cache, where the file system can.

Copying 18 GB into the page cache and out of it again costs as much processor time as merging
them. Deliberately knows no format: descriptors and sizes only.
"""

import ctypes
import errno
import os
from pathlib import Path

__all__ = ["open_direct", "reserve"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def open_direct(path: Path, flags: int) -> int | None:
    """A descriptor that bypasses the page cache, or None on tmpfs and some network file systems."""
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return None


def reserve(fd: int, num_bytes: int) -> None:
    """Gives the file its size and, where the file system can, its blocks.

    Writes into reserved blocks need no allocation, so they run side by side; and a full disk shows
    now and not in the middle. os.posix_fallocate is not used because it writes to every block
    where the file system cannot reserve.

    Raises:
        OSError: there is no room.
    """
    if num_bytes and _libc.fallocate(fd, 0, 0, num_bytes) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
    os.ftruncate(fd, num_bytes)
