"""Where a run's files lie, and how they appear: whole or not at all.

    OUT/part-00000012.parquet            chunk 12, done
    OUT/.part-00000012.<unique>.partial  chunk 12, being written
    OUT/_rejected/part-00000012.jsonl    rows of chunk 12 without an embedding; none where there are none
    OUT/_polyvec/run.json                what this run is
    OUT/_polyvec/lock                    held by who runs it
    OUT/_polyvec/attempts/               what was begun and not ended, for rows that end an engine
    OUT/_polyvec/summary.json            written last

Knows paths, renames and full disks; not what is in the files.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from serving.errors import OutputError

PART_GLOB = "part-*.parquet"
_STAGING_GLOBS = (".part-*.partial", "_rejected/.part-*.partial", "_polyvec/.*.partial")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Output:
    """The directory of one run."""

    root: Path

    @property
    def state(self) -> Path:
        """What the run keeps for itself; consumers of the files pass by what begins with an underscore."""
        return self.root / "_polyvec"

    @property
    def rejects(self) -> Path:
        """Directory of the rejected rows."""
        return self.root / "_rejected"

    @property
    def attempts(self) -> Path:
        """Directory of what was begun and not ended."""
        return self.state / "attempts"

    @property
    def run_file(self) -> Path:
        """What the run is."""
        return self.state / "run.json"

    @property
    def summary_file(self) -> Path:
        """What the run came to."""
        return self.state / "summary.json"

    def part(self, index: int) -> Path:
        """The file of chunk `index`; the chunk is done if it exists."""
        return self.root / f"part-{index:08}.parquet"

    def rejected(self, index: int) -> Path:
        """The rejected rows of chunk `index`."""
        return self.rejects / f"part-{index:08}.jsonl"

    def leftovers(self) -> list[Path]:
        """Staged files; of a run that does not run any more, all of them are to be removed."""
        return [path for glob in _STAGING_GLOBS for path in self.root.glob(glob)]

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of writing as `OutputError`."""
        try:
            yield
        except OSError as error:
            raise self.error(error) from error

    def error(self, error: OSError) -> OutputError:
        """What `error` means for a run that writes here."""
        if error.errno in _FULL:
            return OutputError(
                f"{self.root} is full ({error.strerror}). "
                "Free space and run the same command again; what is finished stays."
            )
        return OutputError(
            f"{self.root} cannot be written to ({error.strerror or error}). "
            "Make it writable and run the same command again; what is finished stays."
        )


def staging_of(path: Path) -> Path:
    """A name beside `path` that nobody else uses, hidden from whoever reads the directory."""
    return path.with_name(f".{path.stem}.{uuid4().hex}.partial")


def publish(staged: Path, path: Path) -> None:
    """Give a staged and synced file its name, for good.

    Raises:
        OSError: as of the file system.
    """
    staged.replace(path)
    sync_directory(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file: it has all of `data`, or what it had before.

    Raises:
        OSError: as of the file system.
    """
    staged = staging_of(path)
    try:
        with staged.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(staged, path)
    finally:
        # Gone already where it was published.
        staged.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make the names in `path` last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
