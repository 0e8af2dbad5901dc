"""The pieces of a source that make up a chunk: where rows are, without the rows.

It does not know how they are read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

from serving.batch.data_file import DataFile
from serving.batch.hub_dataset import HubDataset
from serving.batch.rows import Rejected
from serving.batch.walk import spelled


@dataclass(frozen=True, slots=True)
class Slice:
    """Neighbouring rows of a file or dataset.

    Attributes:
        table: what they are in.
        offset_bytes: where the first begins, in a file of lines (after decompression); otherwise 0.
        number: of the first, from 1: its line in a file of lines, its row in others.
        num_rows: how many.
    """

    table: DataFile | HubDataset
    offset_bytes: int
    number: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class Files:
    """Files that are one row each, by their names under `root`."""

    root: Path
    names: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """How many."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Refused:
    """A file or directory that cannot be read; it counts as one row."""

    name: str
    reason: str

    @property
    def num_rows(self) -> int:
        """One."""
        return 1

    def row(self) -> Rejected:
        """That row."""
        id_ = spelled(self.name)
        return Rejected(id_, id_, None, self.reason)


Piece = Slice | Files | Refused


@dataclass(frozen=True, slots=True)
class Cut:
    """A slice as a file was cut into.

    Attributes:
        piece: the slice.
        entry: what its file must be read from to get there, such as a row group; None if reading can begin at
            any row.
    """

    piece: Slice
    entry: int | None


def sizes(first: int, others: int) -> Iterator[int]:
    """How many rows the slices of a file have: `first` fill a chunk that others began."""
    return chain((first,), repeat(others))


def cut_lines(
    file: DataFile, starts: Iterable[tuple[int, int]], first: int, others: int
) -> Iterator[Cut]:
    """Slices of a file of lines.

    Args:
        file: the file.
        starts: offset and line number of each row.
        first: rows of the first slice, at most.
        others: rows of the others.
    """
    left = iter(starts)
    entry = None if file.compression is None else 0
    for size in sizes(first, others):
        taken = list(islice(left, size))
        if not taken:
            return
        yield Cut(Slice(file, *taken[0], num_rows=len(taken)), entry)
