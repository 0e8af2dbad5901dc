"""Parquet: rows in row groups, each of which is read from its beginning, a batch of rows at a time.

A row group that is damaged costs its own rows, each of which is rejected: the footer says how many there are.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from serving.batch.arrow_cells import rows_of
from serving.batch.content import Columns, Place
from serving.batch.data_file import DataFile
from serving.batch.pieces import Cut, Slice, sizes
from serving.batch.rows import Rejected, Row

_MAX_BATCH_ROWS = 1024
# Of rows as they are decoded: a page as an image takes megabytes.
_BATCH_BYTES = 8 * 1024 * 1024
# Without it, a column of a whole row group is read at once.
_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Groups:
    """Where row groups begin, and after the last, where the file ends; in rows from 0."""

    starts: tuple[int, ...]

    @classmethod
    def of(cls, metadata: pq.FileMetaData) -> "_Groups":
        counts = (metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
        return cls(tuple(accumulate(counts, initial=0)))

    def index_of(self, row: int) -> int:
        return bisect_right(self.starts, row) - 1


def read_columns(file: DataFile) -> tuple[str, ...]:
    """The columns of `file`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no parquet.
    """
    with pq.ParquetFile(file.path) as parquet:
        return tuple(parquet.schema_arrow.names)


def cut_parquet(file: DataFile, first: int, others: int) -> Iterator[Cut]:
    """Slices of `file`: at most `first` rows, then `others` each.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no parquet.
    """
    with pq.ParquetFile(file.path) as parquet:
        groups = _Groups.of(parquet.metadata)
    row = 0
    for size in sizes(first, others):
        num_rows = min(size, groups.starts[-1] - row)
        if not num_rows:
            return
        yield Cut(Slice(file, 0, row + 1, num_rows), groups.index_of(row))
        row += num_rows


@dataclass(frozen=True, slots=True)
class _Held:
    """Rows that are in memory, or why they cannot be.

    Attributes:
        start: the first, from 0.
        end: after the last.
        rows: the rows, or the reason.
    """

    start: int
    end: int
    rows: pa.RecordBatch | str


_NOTHING = _Held(0, 0, "")


class ParquetReader:
    """Rows of one file."""

    def __init__(self, file: DataFile, columns: Columns) -> None:
        self._parquet = pq.ParquetFile(file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self._groups = _Groups.of(self._parquet.metadata)
        names = set(self._parquet.schema_arrow.names)
        self._names = [name for name in dict.fromkeys(columns.names) if name in names]
        self._columns = columns
        self._file = Place(file.label, file.directory)
        self._held = _NOTHING
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, piece: Slice) -> Iterator[Row | Rejected]:
        """The rows of `piece`."""
        row = piece.number - 1
        end = row + piece.num_rows
        while row < end:
            held = self._at(row)
            until = min(end, held.end)
            if isinstance(held.rows, str):
                for lost in range(row, until):
                    yield self._place(lost).rejected(held.rows)
            else:
                batch = held.rows.slice(row - held.start, until - row)
                yield from rows_of(batch, self._columns, self._file, row + 1)
            row = until

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()

    def _place(self, row: int) -> Place:
        return Place(f"{self._file.where}:{row + 1}", self._file.directory)

    def _at(self, row: int) -> _Held:
        """What holds `row`."""
        group = self._groups.index_of(row)
        is_ahead = self._held.start <= row and self._groups.index_of(self._held.start) == group
        if self._held is _NOTHING or not is_ahead:
            start = self._groups.starts[group]
            self._batches = self._begin(group)
            self._held = _Held(start, start, "")
        while row >= self._held.end:
            self._held = self._next(group)
        return self._held

    def _begin(self, group: int) -> Iterator[pa.RecordBatch]:
        about = self._parquet.metadata.row_group(group)
        row_bytes = max(1, about.total_byte_size // max(1, about.num_rows))
        batches: Iterator[pa.RecordBatch] = self._parquet.iter_batches(
            batch_size=max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES // row_bytes)),
            row_groups=[group],
            columns=self._names,
            use_threads=False,  # sections are read side by side
        )
        return batches

    def _next(self, group: int) -> _Held:
        start, end = self._held.end, self._groups.starts[group + 1]
        try:
            batch = next(self._batches)
        except StopIteration:
            return _Held(start, end, self._lost(group, "it ends early"))
        except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, and not the file's
            return _Held(start, end, self._lost(group, str(error)))
        return _Held(start, start + batch.num_rows, batch)

    def _lost(self, group: int, why: str) -> str:
        return f"Row group {group} of {self._file.where} cannot be read: {why.rstrip('.')}."
