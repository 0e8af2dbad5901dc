"""JSON Lines: an object a line.

A line of nothing but whitespace is not a row; any other line is one, if only to be rejected.
"""

from collections.abc import Iterator
from contextlib import closing

import orjson

from serving.batch.content import Cells, Columns, Place, row_of
from serving.batch.data_file import DataFile
from serving.batch.lines import MAX_LINE_BYTES, LineReader
from serving.batch.pieces import Cut, Slice, cut_lines
from serving.batch.rows import Rejected, Row


def cut_jsonl(file: DataFile, first: int, others: int) -> Iterator[Cut]:
    """Slices of `file`: at most `first` rows, then `others` each.

    Raises:
        OSError: it cannot be read.
    """
    with closing(LineReader(file)) as lines:
        yield from cut_lines(file, _starts(lines), first, others)


def _starts(lines: LineReader) -> Iterator[tuple[int, int]]:
    start = (lines.offset_bytes, lines.number)
    for line in lines:
        if not _is_blank(line):
            yield start
        start = (lines.offset_bytes, lines.number)


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()  # nothing is left of a line that was a byte order mark


class JsonlReader:
    """Rows of one file."""

    def __init__(self, file: DataFile, columns: Columns) -> None:
        self._lines = LineReader(file)
        self._label = file.label
        self._directory = file.directory
        self._columns = columns

    def read(self, piece: Slice) -> Iterator[Row | Rejected]:
        """The rows of `piece`; fewer if the file has fewer."""
        self._lines.go_to(piece.offset_bytes, piece.number)
        left = piece.num_rows
        while left:
            number = self._lines.number
            line = next(self._lines, None)
            if line is None:
                return
            if not _is_blank(line):
                left -= 1
                yield self._row(line, Place(f"{self._label}:{number}", self._directory))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _row(self, line: bytes, place: Place) -> Row | Rejected:
        if len(line) > MAX_LINE_BYTES:
            return place.rejected(
                f"The line is longer than {MAX_LINE_BYTES // 1024**2} MiB. Give files as paths."
            )
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return place.rejected(f"The line is not JSON: {error.msg} (character {error.pos}).")
        if not isinstance(value, dict):
            return place.rejected(f"A line must hold a JSON object, not {type(value).__name__}.")
        cells = Cells(*(value.get(name) for name in self._columns.names))
        return row_of(cells, place, self._columns)
