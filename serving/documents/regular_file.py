"""Read a file that a user named, within bounds.

A path may lead to a device that never ends, to a pipe nobody writes to, or to a file that grows: opening
never waits, only regular files are read (also behind links), and what bounds a read is what was read, not
the size that the file system states. Knows nothing of what the bytes are.
"""

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from serving.errors import InputError

# Never wait for a pipe's other end, and never take a terminal over.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_MIN_READ_BYTES = 64 * 1024

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
)


def read_regular_file(path: Path, max_bytes: int, name: str) -> bytes:
    """The content of the regular file at `path`.

    Args:
        path: a file, or a link to one.
        max_bytes: a file that holds more is refused; at most one byte more is read.
        name: what messages call it.

    Raises:
        InputError: there is no such file, it is no regular one, it cannot be read, or holds too much.
    """
    with open_regular_file(path, name) as file:
        try:
            return _read(file, max_bytes, name)
        except OSError as error:
            raise InputError(f"{name} cannot be read ({error.strerror}).") from error


def open_regular_file(path: Path, name: str) -> io.FileIO:
    """The regular file at `path`, open for reading; the caller closes it, and bounds what is read.

    Raises:
        InputError: there is no such file, it is no regular one, or it may not be read.
    """
    try:
        # Before it is opened, for opening alone makes some devices do things; and of the open file, for
        # another may stand there by then.
        _require_regular(path.stat().st_mode, name)
        file = io.FileIO(os.open(path, _FLAGS), "r")
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}).") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{name!r} is no path: no file's name has these characters.") from error
    try:
        _require_regular(os.fstat(file.fileno()).st_mode, name)
    except InputError:
        file.close()
        raise
    return file


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"{name} is a directory, not a file. Pass the files in it one by one.")
    kind = next((kind for fits, kind in _KINDS if fits(mode)), "something else")
    raise InputError(
        f"{name} is {kind}; only regular files are read. Save its content to a file and pass that."
    )


def _read(file: io.FileIO, max_bytes: int, name: str) -> bytes:
    # Files of /proc state a size of 0, and a log that is being written has more than it states.
    stated_bytes = os.fstat(file.fileno()).st_size
    if stated_bytes > max_bytes:
        raise InputError(f"{name} has {stated_bytes} bytes; at most {max_bytes} are read.")
    parts: list[bytes] = []
    left_bytes = max_bytes + 1
    while left_bytes:
        part = os.read(file.fileno(), min(left_bytes, max(stated_bytes + 1, _MIN_READ_BYTES)))
        if not part:
            return b"".join(parts)
        parts.append(part)
        left_bytes -= len(part)
    raise InputError(f"{name} has more than {max_bytes} bytes; at most {max_bytes} are read.")
