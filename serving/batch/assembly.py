"""Pieces put together to chunks of equal size, and chunks to sections.

A chunk may hold the end of a file and the beginning of the next; a file must not leave a chunk half full, since
corpora come in thousands of small files.
"""

from dataclasses import dataclass

from serving.batch.content import Columns
from serving.batch.data_file import DataFile
from serving.batch.hub_dataset import HubDataset
from serving.batch.pieces import Cut, Files, Piece, Refused
from serving.batch.section import Section

MIN_CHUNKS = 16
"""Chunks of a section, at least: millions of rows should give thousands of sections."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What must be read from its beginning to get to a chunk."""

    table: DataFile | HubDataset
    index: int


class Assembly:
    """Takes pieces in the source's order."""

    def __init__(self, rows_per_chunk: int, columns: Columns) -> None:
        self._size = rows_per_chunk
        self._columns = columns
        self._chunks: list[tuple[Piece, ...]] = []
        self._entries: list[_Entry | None] = []
        self._filling: list[Piece] = []
        self._room = rows_per_chunk

    @property
    def room(self) -> int:
        """Rows that the next piece may have at most."""
        return self._room

    def add_cut(self, cut: Cut) -> None:
        """Add a slice of no more than `room` rows."""
        entry = None if cut.entry is None else _Entry(cut.piece.table, cut.entry)
        self._add(cut.piece, entry)

    def add(self, piece: Files | Refused) -> None:
        """Add a piece of no more than `room` rows."""
        self._add(piece, None)

    def sections(self) -> tuple[Section, ...]:
        """All that was added.

        A section does not begin in the middle of what is read from its beginning, as a row group is: both it and
        the section before would read that.
        """
        if self._filling:
            self._close()
        starts: list[int] = []
        for index, entry in enumerate(self._entries):
            can_begin = entry is None or index == 0 or entry != self._entries[index - 1]
            if not starts or (can_begin and index - starts[-1] >= MIN_CHUNKS):
                starts.append(index)
        ends = [*starts[1:], len(self._chunks)]
        return tuple(
            Section(start, self._columns, tuple(self._chunks[start:end]))
            for start, end in zip(starts, ends, strict=True)
        )

    def _close(self) -> None:
        self._chunks.append(tuple(self._filling))
        self._filling = []
        self._room = self._size

    def _add(self, piece: Piece, entry: _Entry | None) -> None:
        assert 0 < piece.num_rows <= self._room
        if not self._filling:
            self._entries.append(entry)
        self._filling.append(piece)
        self._room -= piece.num_rows
        if not self._room:
            self._close()
