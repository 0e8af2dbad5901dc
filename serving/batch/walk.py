"""The files under a directory, in an order that does not change.

Follows links, and does not go round in circles. It does not know what files are for, but for a few names
that belong to directories and not to corpora.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Left by those who write, download or look at a corpus; hidden files are left out as well.
ABOUT_A_DIRECTORY = frozenset(
    {
        "readme",
        "readme.md",
        "readme.rst",
        "readme.txt",
        "license",
        "license.md",
        "license.txt",
        "_success",
        "_metadata",
        "_common_metadata",
        "desktop.ini",
        "thumbs.db",
    }
)

_Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A file, by its path from the root with `/` between names; the name as the file system has it."""

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or a directory that cannot be looked at, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    above: frozenset[_Inode]


def spelled(name: str) -> str:
    """A file's name as a string that has a UTF-8 form; names on disk are bytes and need not have one."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def walk(root: Path) -> Iterator[Found | Unreadable]:
    """All files under `root`, each directory's names sorted.

    Hidden files and directories, and `ABOUT_A_DIRECTORY`, are left out. A link to a directory that it is in
    is left out too, since what is there is found already.
    """
    waiting = [_Entry("", frozenset())]  # the next one last
    while waiting:
        entry = waiting.pop()
        path = root / entry.name
        try:
            found = path.stat()
            if not stat.S_ISDIR(found.st_mode):
                yield _file(entry.name, found)
                continue
            inode = (found.st_dev, found.st_ino)
            if inode in entry.above:
                continue
            names = sorted(filter(_counts, os.listdir(path)), reverse=True)  # noqa: PTH208 - Paths cost more
        except OSError as error:
            yield Unreadable(entry.name, f"It cannot be read: {error.strerror}.")
            continue
        prefix = f"{entry.name}/" if entry.name else ""
        above = entry.above | {inode}
        waiting.extend(_Entry(prefix + name, above) for name in names)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in ABOUT_A_DIRECTORY


def _file(name: str, found: os.stat_result) -> Found | Unreadable:
    if not stat.S_ISREG(found.st_mode):
        return Unreadable(name, "It is not a regular file.")
    return Found(name, found.st_size, found.st_mtime_ns)
