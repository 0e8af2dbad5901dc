"""Neighbouring chunks of a source, as what one task reads: small enough to send, and read front to back.

It does not know how a source was cut into them.
"""

from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, assert_never

import pyarrow as pa

from serving.batch.content import Columns
from serving.batch.csv_files import CsvReader
from serving.batch.data_file import DataFile, Kind
from serving.batch.files import read_files
from serving.batch.hub_dataset import HubDataset
from serving.batch.hub_rows import HubReader
from serving.batch.jsonl import JsonlReader
from serving.batch.parquet import ParquetReader
from serving.batch.pieces import Files, Piece, Refused, Slice
from serving.batch.rows import Chunk, Rejected, Row
from serving.errors import SourceError


@dataclass(frozen=True, slots=True)
class Section:
    """Neighbouring chunks; can be pickled, and is small.

    Attributes:
        first_chunk: index of the first.
        columns: of the source that are read.
        parts: the pieces of each chunk.
    """

    first_chunk: int
    columns: Columns
    parts: tuple[tuple[Piece, ...], ...]

    @property
    def num_chunks(self) -> int:
        """How many chunks."""
        return len(self.parts)

    @property
    def num_rows(self) -> int:
        """Rows of all its chunks."""
        return sum(piece.num_rows for pieces in self.parts for piece in pieces)

    def chunks(self, wanted: Collection[int]) -> Iterator[Chunk]:
        """The chunks whose index is `wanted`, in order; one at a time is in memory.

        Raises:
            SourceError: a file has changed since the source was planned, or cannot be read any more.
        """
        indices = frozenset(wanted)
        with closing(_Reading(self.columns)) as reading:
            for index, pieces in enumerate(self.parts, self.first_chunk):
                if index in indices:
                    yield Chunk(
                        index, tuple(row for piece in pieces for row in reading.rows(piece))
                    )


class _Reader(Protocol):
    def read(self, piece: Slice) -> Iterator[Row | Rejected]: ...

    def close(self) -> None: ...


class _Reading:
    """Reads piece after piece; the file of the last one stays open, since the next is likely to be in it."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._table: DataFile | HubDataset | None = None
        self._reader: _Reader | None = None

    def rows(self, piece: Piece) -> list[Row | Rejected]:
        match piece:
            case Slice():
                return self._slice(piece)
            case Files():
                return list(read_files(piece))
            case Refused():
                return [piece.row()]
            case _:
                assert_never(piece)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._table = None, None

    def _slice(self, piece: Slice) -> list[Row | Rejected]:
        try:
            rows = list(self._opened(piece.table).read(piece))
        except SourceError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            piece.table.check()
            raise SourceError(
                f"{piece.table.label} cannot be read any more: {error}. Run the same command again when it can be."
            ) from error
        # Also afterwards: what was read while a file changed may be anything.
        piece.table.check()
        if len(rows) != piece.num_rows:
            raise SourceError(
                f"{piece.table.label} has {len(rows)} rows from {piece.number} on, "
                f"where {piece.num_rows} were counted. Begin again, with another output."
            )
        return rows

    def _opened(self, table: DataFile | HubDataset) -> _Reader:
        if self._reader is None or table != self._table:
            self.close()
            table.check()
            self._reader = _reader(table, self._columns)
            self._table = table
        return self._reader


def _reader(table: DataFile | HubDataset, columns: Columns) -> _Reader:
    match table:
        case HubDataset():
            return HubReader(table, columns)
        case DataFile(kind=Kind.JSONL):
            return JsonlReader(table, columns)
        case DataFile(kind=Kind.PARQUET):
            return ParquetReader(table, columns)
        case DataFile():
            return CsvReader(table, columns)
        case _:
            assert_never(table)
