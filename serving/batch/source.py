"""What a source is, and how it is cut into numbered chunks: always the same way, as long as it is the same.

It looks at file names, sizes and the places where rows begin; rows are read by sections.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import assert_never

import pyarrow as pa
import xxhash

from serving.batch.assembly import Assembly
from serving.batch.columns_check import ColumnsCheck
from serving.batch.content import Columns
from serving.batch.csv_files import cut_csv, read_header
from serving.batch.data_file import DataFile, Kind, kind_of
from serving.batch.files import read_files
from serving.batch.hub_dataset import find_hub_dataset, is_hub_dataset, open_hub_dataset
from serving.batch.hub_rows import cut_hub
from serving.batch.jsonl import cut_jsonl
from serving.batch.parquet import cut_parquet, read_columns
from serving.batch.pieces import Cut, Files, Refused
from serving.batch.rows import Rejected
from serving.batch.section import Section
from serving.batch.walk import Found, Unreadable, spelled, walk
from serving.errors import InputError, SourceError
from serving.settings.batch import BatchSettings

__all__ = ["Plan", "Section", "plan_source"]

# Of how sources are cut and rows are named: a run does not continue one that did it otherwise.
_VERSION = 1

# A URL as it looks after it was taken for a path.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """A source cut into sections, which are all its chunks in order.

    Attributes:
        sections: what tasks read.
        num_rows: of the source, whether they can be embedded or not.
        num_chunks: of all sections.
        fingerprint: changes when a run over the source could not continue an old one.
    """

    sections: tuple[Section, ...]
    num_rows: int
    num_chunks: int
    fingerprint: str


def plan_source(source: Path, settings: BatchSettings) -> Plan:
    """Look at `source` and cut it into chunks of `rows_per_file`; it is read once, if its format needs that.

    Raises:
        SourceError: it is not there, is not a source, has no rows, cannot be read, or lacks a column that was
            named.
    """
    _look_at(source, settings)
    source = source.absolute()
    planning = _Planning(source, settings)
    if source.is_file():
        planning.add_file(source)
    elif is_hub_dataset(source):
        planning.add_hub_dataset()
    else:
        planning.add_directory()
    return planning.plan()


def _look_at(source: Path, settings: BatchSettings) -> None:
    try:
        source.stat()
    except OSError as error:
        if _URL.match(str(source)):
            raise SourceError(
                f"{source} is a URL, and a source must be a file or a directory. "
                "Mount it, or download it."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise SourceError(
                f"{source} does not exist. Pass a file or a directory that is there."
            ) from error
        raise SourceError(
            f"{source} cannot be read: {error.strerror}. Make it readable, and run this again."
        ) from error
    if settings.split is not None and not is_hub_dataset(source):
        raise SourceError(
            f"{source} is not a dataset that datasets.save_to_disk wrote, so it has no split "
            f"{settings.split!r}. Leave the split out."
        )


class _Planning:
    """Adds up pieces, and what is known of columns and files."""

    def __init__(self, source: Path, settings: BatchSettings) -> None:
        self._source = source
        self._settings = settings
        self._size = settings.rows_per_file
        self._assembly = Assembly(self._size, Columns.of(settings))
        self._check = ColumnsCheck(source, settings)
        self._num_good_rows = 0
        self._first_bad: Rejected | None = None
        self._digest = xxhash.xxh3_128()
        self._stamp(
            _VERSION,
            settings.id_column,
            settings.text_column,
            settings.image_column,
            settings.pdf_column,
            settings.split,
            settings.rows_per_file,
        )

    def add_file(self, source: Path) -> None:
        """The source is one file."""
        found = source.stat()
        entry = Found(source.name, found.st_size, found.st_mtime_ns)
        self._add_all((entry,), source.parent)

    def add_directory(self) -> None:
        """The source is a directory of files."""
        self._add_all(walk(self._source), self._source)

    def add_hub_dataset(self) -> None:
        """The source is a dataset on disk."""
        hub = find_hub_dataset(self._source, self._settings.split)
        dataset = open_hub_dataset(hub)
        self._stamp("dataset", hub.label, hub.stamp)
        try:
            self._check.add(tuple(dataset.column_names))
        except InputError as error:
            raise SourceError(f"{self._source}: {error.reason}") from error
        for cut in cut_hub(hub, len(dataset), self._assembly.room, self._size):
            self._add_cut(cut)

    def plan(self) -> Plan:
        """All that was added.

        Raises:
            SourceError: that is nothing, or nothing that can be read, or a column is missing.
        """
        if not self._num_good_rows:
            raise SourceError(self._no_rows())
        self._check.finish()
        sections = self._assembly.sections()
        return Plan(
            sections,
            num_rows=sum(section.num_rows for section in sections),
            num_chunks=sum(section.num_chunks for section in sections),
            fingerprint=self._digest.hexdigest(),
        )

    def _add_all(self, entries: Iterable[Found | Unreadable], root: Path) -> None:
        for rows_each, run in groupby(self._stamped(entries), _rows_each):
            match rows_each:
                case "one":
                    self._add_files((entry.name for entry in run), root)
                case "many":
                    for entry in run:
                        assert isinstance(entry, Found)
                        self._add_table(
                            DataFile(root, entry.name, entry.size_bytes, entry.mtime_ns)
                        )
                case "unreadable":
                    for entry in run:
                        assert isinstance(entry, Unreadable)
                        self._refuse(entry.name or ".", entry.reason)

    def _add_files(self, names: Iterator[str], root: Path) -> None:
        while taken := tuple(islice(names, self._assembly.room)):
            piece = Files(root, taken)
            bad = [row for row in read_files(piece) if isinstance(row, Rejected)]
            self._num_good_rows += piece.num_rows - len(bad)
            if bad and self._first_bad is None:
                self._first_bad = bad[0]
            self._assembly.add(piece)

    def _add_table(self, file: DataFile) -> None:
        """Add the rows of `file`, all or none."""
        try:
            cuts = list(self._cuts(file))
        except (OSError, ValueError, pa.ArrowException) as error:
            self._refuse(file.name, f"It cannot be read: {_said(error)}")
            return
        file.check()
        for cut in cuts:
            self._add_cut(cut)

    def _cuts(self, file: DataFile) -> Iterator[Cut]:
        match file.kind:
            case Kind.JSONL:
                self._check.add_unknown()
                return cut_jsonl(file, self._assembly.room, self._size)
            case Kind.CSV | Kind.TSV:
                if header := read_header(file):
                    self._check.add(header)
                return cut_csv(file, self._assembly.room, self._size)
            case Kind.PARQUET:
                self._check.add(read_columns(file))
                return cut_parquet(file, self._assembly.room, self._size)
            case other:
                assert_never(other)

    def _add_cut(self, cut: Cut) -> None:
        self._num_good_rows += cut.piece.num_rows
        self._assembly.add_cut(cut)

    def _refuse(self, name: str, reason: str) -> None:
        piece = Refused(name, reason)
        if self._first_bad is None:
            self._first_bad = piece.row()
        self._assembly.add(piece)

    def _no_rows(self) -> str:
        bad = self._first_bad
        if bad is None:
            return f"{self._source} has no rows. Pass a source with something to embed."
        if self._source.is_file():
            return f"{self._source}: {bad.reason}"
        return f"Nothing in {self._source} can be read. {bad.where}: {bad.reason}"

    def _stamped(self, entries: Iterable[Found | Unreadable]) -> Iterator[Found | Unreadable]:
        for entry in entries:
            match entry:
                case Found():
                    self._stamp(spelled(entry.name), entry.size_bytes, entry.mtime_ns)
                case Unreadable():
                    self._stamp(spelled(entry.name), entry.reason)
                case _:
                    assert_never(entry)
            yield entry

    def _stamp(self, *parts: str | int | None) -> None:
        self._digest.update(repr(parts).encode("utf-8", "backslashreplace"))


def _rows_each(entry: Found | Unreadable) -> str:
    if isinstance(entry, Unreadable):
        return "unreadable"
    return "one" if kind_of(entry.name) is None else "many"


def _said(error: Exception) -> str:
    text = error.reason if isinstance(error, InputError) else str(error)
    return text if text.endswith(".") else f"{text}."
