"""The sink that writes: positioned writes into preallocated files, pushed to disk as they come.

Aligned writes go past the page cache where the file system lets them. The others go through it and
are flushed behind the writers, because dirty pages that pile up stall every writer at once when the
kernel's limit is reached. Deliberately knows no arithmetic
and no manifest: it sees places and bytes.
"""

import errno
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType

from merge_tools.buffers import Buffer, bytes_of
from merge_tools.direct import open_direct, reserve
from merge_tools.errors import WriteFailed
from merge_tools.layout import PAGE_BYTES, OutputFile
from merge_tools.plan import TensorPlan
from merge_tools.signals import let_signals_through

__all__ = ["CheckpointWriter", "failures_named", "write_file"]

# Written ranges kept in the page cache per file before they are waited for and dropped.
NUM_RANGES_BEHIND = 4


_NOTHING = "Nothing was left behind; make room or choose another output directory, and run again."


@contextmanager
def failures_named(path: Path, num_bytes: int, *, left: str = _NOTHING) -> Iterator[None]:
    """Turns an OSError inside into one that says which file, how large, and what to do.

    Raises:
        WriteFailed: instead of OSError.
    """
    try:
        yield
    except OSError as cause:
        raise WriteFailed(
            f"{path} ({num_bytes} bytes) could not be written: {cause.strerror}. {left}"
        ) from cause


def write_file(path: Path, data: bytes) -> None:
    """Writes a small file and waits until it is on disk."""
    with failures_named(path, len(data)), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class _Target:
    """One open output file, written directly where it can be and through the cache elsewhere."""

    def __init__(self, path: Path, file: OutputFile) -> None:
        self.path = path
        self.num_bytes = file.num_bytes
        self._behind: deque[tuple[int, int]] = deque()
        self._lock = Lock()
        self._is_refused = False
        with failures_named(path, self.num_bytes):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._direct_fd = open_direct(path, os.O_RDWR)

    def reserve(self) -> None:
        with failures_named(self.path, self.num_bytes):
            reserve(self._fd, self.num_bytes)

    def write(self, offset: int, data: memoryview, address: int) -> None:
        with failures_named(self.path, self.num_bytes):
            is_aligned = not (offset | len(data) | address) % PAGE_BYTES
            if is_aligned and self._write_directly(offset, data):
                return
            _write_all(self._fd, offset, data)
            self._push(offset, len(data))

    def _write_directly(self, offset: int, data: memoryview) -> bool:
        """Writes past the page cache; False where the file system refuses."""
        if self._direct_fd is None or self._is_refused:
            return False
        try:
            _write_all(self._direct_fd, offset, data)
        except OSError as cause:
            # Some file systems open a file for direct writes and then refuse them.
            if cause.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self._is_refused = True
            return False
        return True

    def _push(self, offset: int, num_bytes: int) -> None:
        """Starts writing the range out, and drops a range that was started some writes ago."""
        # On Linux this advice begins the write-back of dirty pages and drops clean ones.
        os.posix_fadvise(self._fd, offset, num_bytes, os.POSIX_FADV_DONTNEED)
        with self._lock:
            self._behind.append((offset, num_bytes))
            old = self._behind.popleft() if len(self._behind) > NUM_RANGES_BEHIND else None
        if old is not None:
            os.posix_fadvise(self._fd, *old, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        with failures_named(self.path, self.num_bytes):
            os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
        if self._direct_fd is not None:
            os.close(self._direct_fd)


def _write_all(fd: int, offset: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


class CheckpointWriter(AbstractContextManager["CheckpointWriter"]):
    """Output files of all tasks; shared ones are written once, into the first task's directory."""

    def __init__(self, directories: Mapping[str, Path], files: Sequence[OutputFile]) -> None:
        self._directories = directories
        self._files = files
        self._targets: dict[tuple[str | None, str], _Target] = {}

    def __enter__(self) -> "CheckpointWriter":
        with ExitStack() as undo:
            undo.callback(self._close_all)
            self._open_all()
            undo.pop_all()
        return self

    def _open_all(self) -> None:
        first = next(iter(self._directories.values()))
        for file in self._files:
            places = {None: first} if file.is_shared else self._directories
            for task, directory in places.items():
                let_signals_through()
                target = self._targets[task, file.name] = _Target(directory / file.name, file)
                target.reserve()
                # Headers are few: written through the cache, whatever their memory's address.
                target.write(0, memoryview(file.header), address=1)

    def _close_all(self) -> None:
        for target in self._targets.values():
            target.close()

    def put(self, task: str | None, tensor: TensorPlan, first_byte: int, data: Buffer) -> None:
        """Writes bytes at their place; a task's own file may also hold what all tasks share."""
        keys = [(task, tensor.file)]
        if task is None and (None, tensor.file) not in self._targets:
            keys = [(each, tensor.file) for each in self._directories]
        for key in keys:
            self._targets[key].write(tensor.offset + first_byte, bytes_of(data), data.data_ptr())

    def finish(self, *, link: bool) -> None:
        """Waits until everything is on disk, and gives every task the shared files."""
        for target in self._targets.values():
            let_signals_through()
            target.sync()
        first, *others = self._directories.values()
        for file in (file for file in self._files if file.is_shared):
            for directory in others:
                let_signals_through()
                with failures_named(directory / file.name, file.num_bytes):
                    if link:
                        os.link(first / file.name, directory / file.name)
                    else:
                        _copy(first / file.name, directory / file.name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_all()


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
