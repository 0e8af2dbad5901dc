"""CSV and tab-separated values: a header, and a record a row, whose quoted fields may hold line feeds.

An empty field is no value, since CSV has no other way to say so. Quotes are taken strictly: a record that
breaks the rules is rejected rather than guessed at, and reading goes on at the next line.
"""

import csv
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Self

from serving.batch.content import Cells, Columns, Place, row_of
from serving.batch.data_file import DataFile, Kind
from serving.batch.lines import MAX_LINE_BYTES, LineReader
from serving.batch.pieces import Cut, Slice, cut_lines
from serving.batch.rows import Rejected, Row
from serving.errors import InputError


@dataclass(frozen=True, slots=True)
class _Record:
    """A record, or what is wrong with the lines that should be one."""

    start: tuple[int, int]
    fields: tuple[str, ...]
    fault: str | None


class _TooLongError(Exception):
    pass


class _Records:
    """Iterates over the records from where `lines` are, without empty lines."""

    def __init__(self, lines: LineReader, kind: Kind) -> None:
        # The limit is the process's; the default of 128 KiB is less than a text may have.
        csv.field_size_limit(MAX_LINE_BYTES)
        self._lines = lines
        self._delimiter = "\t" if kind is Kind.TSV else ","
        self._num_bytes = 0
        self._is_utf8 = True
        self._reader = self._anew()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Record:
        while True:
            start = (self._lines.offset_bytes, self._lines.number)
            self._num_bytes, self._is_utf8 = 0, True
            fault = None
            fields: list[str] = []
            try:
                fields = next(self._reader)
            except csv.Error as error:
                # What follows a dash is advice to programmers.
                fault = self._told(str(error).split(" - ")[0], start[1])
            except _TooLongError:
                fault = self._told(f"it is longer than {MAX_LINE_BYTES // 1024**2} MiB", start[1])
            if fault is not None:
                self._reader = self._anew()
            elif not self._is_utf8:
                fault = "The record is not valid UTF-8."
            if fields or fault is not None:
                return _Record(start, tuple(fields), fault)

    def _anew(self) -> Iterator[list[str]]:
        return csv.reader(self._decoded(), delimiter=self._delimiter, strict=True)

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            self._num_bytes += len(line)
            if self._num_bytes > MAX_LINE_BYTES:
                raise _TooLongError
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self._is_utf8 = False
                text = line.decode("utf-8", "surrogateescape")  # quotes and commas are still there
            yield text

    def _told(self, problem: str, first: int) -> str:
        last = self._lines.number - 1
        lines = f"line {first}" if last == first else f"lines {first} to {last}"
        return f"The record in {lines} cannot be read: {problem}."


def read_header(file: DataFile) -> tuple[str, ...]:
    """The columns of `file`; none if it is empty.

    Raises:
        OSError: it cannot be read.
        InputError: its header cannot be.
    """
    with closing(LineReader(file)) as lines:
        return _header(_Records(lines, file.kind))


def cut_csv(file: DataFile, first: int, others: int) -> Iterator[Cut]:
    """Slices of `file`: at most `first` rows, then `others` each.

    Raises:
        OSError: it cannot be read.
        InputError: its header cannot be.
    """
    with closing(LineReader(file)) as lines:
        records = _Records(lines, file.kind)
        _header(records)
        yield from cut_lines(file, (record.start for record in records), first, others)


def _header(records: _Records) -> tuple[str, ...]:
    record = next(records, None)
    if record is None:
        return ()
    if record.fault is not None:
        raise InputError(
            f"Its header cannot be read. {record.fault} Lines must end in LF or CRLF, and fields be UTF-8."
        )
    return record.fields


class CsvReader:
    """Rows of one file."""

    def __init__(self, file: DataFile, columns: Columns) -> None:
        self._lines = LineReader(file)
        self._kind = file.kind
        self._label = file.label
        self._directory = file.directory
        self._columns = columns
        self._header = _header(_Records(self._lines, self._kind))
        self._indices = [
            self._header.index(name) if name in self._header else None for name in columns.names
        ]

    def read(self, piece: Slice) -> Iterator[Row | Rejected]:
        """The rows of `piece`; fewer if the file has fewer."""
        self._lines.go_to(piece.offset_bytes, piece.number)
        records = _Records(self._lines, self._kind)
        for _ in range(piece.num_rows):
            record = next(records, None)
            if record is None:
                return
            yield self._row(record, Place(f"{self._label}:{record.start[1]}", self._directory))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _row(self, record: _Record, place: Place) -> Row | Rejected:
        if record.fault is not None:
            return place.rejected(record.fault)
        if len(record.fields) != len(self._header):
            return place.rejected(
                f"The record has {len(record.fields)} fields; the header has {len(self._header)}."
            )
        cells = Cells(
            *(None if index is None else record.fields[index] or None for index in self._indices)
        )
        return row_of(cells, place, self._columns)
